"""A CUDA driver for PyAV's own code where there is no GPU: its memory is the host's.

FFmpeg loads `libcuda.so.1` by name and asks for dozens of functions; all are there, succeed and do
nothing, but for the context's number, the device's properties, and copies, which copy. Who gives our
context back ends the process. It is made by the C compiler of the machine, if there is one.
"""

import re
import shutil
import subprocess
from pathlib import Path

import av

_NAME = re.compile(rb"\0(cu[A-Z]\w{3,})(?=\0)")
_REAL = {
    "cuCtxGetCurrent": "(void **c) { *c = (void *)0x77; return 0; }",
    "cuCtxDestroy_v2": "(void *c) { if (c == (void *)0x77) abort(); return 0; }",
    "cuDevicePrimaryCtxRelease": "(int d) { abort(); }",
    "cuDeviceGet": "(int *d, int i) { *d = 0; return 0; }",
    "cuDeviceGetCount": "(int *n) { *n = 1; return 0; }",
    "cuDeviceGetAttribute": "(int *v, int a, int d) { *v = 256; return 0; }",
    "cuMemcpy2DAsync_v2": """(struct copy *c, void *stream) {
    char *from = c->from_host ? c->from_host : c->from, *to = c->to_host ? c->to_host : c->to;
    for (unsigned long row = 0; row < c->height; row++)
        memcpy(to + row * c->to_pitch, from + row * c->from_pitch, c->width);
    return 0;
}""",
}
# CUDA_MEMCPY2D of cuda.h.
_HEAD = """#include <stdlib.h>
#include <string.h>
struct copy {
    unsigned long from_x, from_y; int from_kind; char *from_host, *from; void *from_array;
    unsigned long from_pitch;
    unsigned long to_x, to_y; int to_kind; char *to_host, *to; void *to_array;
    unsigned long to_pitch;
    unsigned long width, height;
};
"""


def make_cuda_stub(folder: Path) -> bool:
    """Put the library into `folder`; False where nothing can make it, or PyAV has no such FFmpeg."""
    compiler = shutil.which("cc")
    libraries = [*Path(av.__file__).parent.with_name("av.libs").glob("libav[cu]*")]
    if compiler is None or not libraries:
        return False
    found = {name.decode() for path in libraries for name in _NAME.findall(path.read_bytes())}
    bodies = {name: "() { return 0; }" for name in found if not name.startswith("cuvid")} | _REAL
    source = folder / "cuda.c"
    source.write_text(_HEAD + "".join(f"int {name}{body}\n" for name, body in bodies.items()))
    target = folder / "libcuda.so.1"
    subprocess.run([compiler, "-w", "-shared", "-fPIC", "-o", target, source], check=True)
    return True
