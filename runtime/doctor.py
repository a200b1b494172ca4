"""What is installed here, what can run, what is missing and how to get it.

Every dependency may be the missing one: all are imported where they are looked at.
"""

import os
import platform
import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from vr_trt.engines.host_memory import available_bytes
from vr_trt.engines.local_gpu import present_gpu
from vr_trt.engines.selection import OLDEST_TRITON_CHIP
from vr_trt.errors import VrTrtError
from vr_trt.runtime.memory import MIB

ENCODERS = ("libx264", "libx265", "libsvtav1", "prores_ks", "ffv1")
DECODERS = ("h264", "hevc", "libdav1d", "vp9")
_DRIVER_HELP = "install an NVIDIA driver (nvidia-smi must list a GPU)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""  # the command that gets what is missing
    needed: bool = False  # nothing can be restored without it


def examine() -> list[Finding]:
    """Look at everything; takes about a second and changes nothing."""
    return [
        Finding(name="Python", ok=True, detail=f"{platform.python_version()}, {platform.system()}"),
        Finding(name="cores", ok=True, detail=str(os.cpu_count())),
        _memory(),
        *(_package(name, remedy, needed) for name, remedy, needed in _PACKAGES),
        *_codecs(),
        _cpu(),
        _gpu(),
        *_gpu_codecs(),
        *(_package(name, remedy, False) for name, remedy in _OPTIONAL),
        _triton(),
    ]


_PACKAGES = (
    ("numpy", "pip install vr-trt", True),
    ("av", "pip install vr-trt", True),
    ("onnxruntime", "pip install 'vr-trt[cpu]'", True),
)
_OPTIONAL = (
    ("tensorrt-rtx", "pip install 'vr-trt[rtx]'"),
    ("tensorrt", "pip install 'vr-trt[tensorrt]'"),
    ("torch", "pip install 'vr-trt[export]', to export models"),
    ("onnx", "pip install 'vr-trt[export]', to export models"),
    ("triton", "pip install 'vr-trt[gpu]'"),
)


def _memory() -> Finding:
    free = available_bytes()
    detail = "unknown" if free is None else f"{free // MIB} MiB available"
    return Finding(name="memory", ok=free is not None, detail=detail)


def _package(name: str, remedy: str, needed: bool) -> Finding:
    try:
        return Finding(name=name, ok=True, detail=version(name), needed=needed)
    except PackageNotFoundError:
        return Finding(name=name, ok=False, detail="not installed", remedy=remedy, needed=needed)


def _codecs() -> Iterator[Finding]:
    remedy = "pip install --force-reinstall av"
    try:
        codecs = import_module("av.codec").codecs_available
    except ImportError as error:  # absent, or a library that it links to is
        yield Finding(name="codecs", ok=False, detail=str(error), remedy=remedy, needed=True)
        return
    for title, wanted in (("decoders", DECODERS), ("encoders", ENCODERS)):
        there = [name for name in wanted if name in codecs]
        absent = [name for name in wanted if name not in codecs]
        detail = ", ".join(there) + (f"; without {', '.join(absent)}" if absent else "")
        yield Finding(name=title, ok=wanted[0] in there, detail=detail, remedy=remedy, needed=True)


def _cpu() -> Finding:
    """Whether the embedded model can be opened on the CPU."""
    remedy = "pip install --force-reinstall 'vr-trt[cpu]'"
    try:
        from vr_trt.runtime.model import EMBEDDED, Model

        model = Model(EMBEDDED / "nano")
        model.session("decode_image")
    except ModuleNotFoundError as error:
        detail, ok = f"{error.name} is not installed", False
    except VrTrtError as error:
        detail, ok = str(error), False
    else:
        detail, ok = f"runs {model.manifest.model} {model.manifest.version}", True
    return Finding(name="CPU backend", ok=ok, detail=detail, remedy=remedy, needed=True)


def _triton() -> Finding:
    """Whether engines of the triton backend could run; PyTorch is not imported: it is slow."""
    packages, gpu = ("triton", "torch"), present_gpu()
    remedy = ""
    if not all(map(find_spec, packages)):
        detail, remedy = f"needs {' and '.join(packages)}", "pip install 'vr-trt[gpu]'"
    elif "+cpu" in (torch := version("torch")):
        detail, remedy = f"torch {torch} is built for the CPU only", "install torch for CUDA"
    elif gpu is None:
        detail, remedy = "no NVIDIA GPU answers", _DRIVER_HELP
    elif lacking := _no_compiler():
        detail, remedy = lacking, "apt-get install gcc python3-dev"
    elif gpu.sm < OLDEST_TRITON_CHIP:
        detail = f"its kernels are for sm_{OLDEST_TRITON_CHIP} and later, not sm_{gpu.sm}"
    else:
        return Finding(name="triton backend", ok=True, detail=f"sm_{gpu.sm}, torch {torch}")
    return Finding(name="triton backend", ok=False, detail=detail, remedy=remedy)


def _no_compiler() -> str:
    """What Triton lacks to build a kernel's launcher where it runs; nothing where all is there."""
    if not os.environ.get("CC") and not any(map(shutil.which, ("gcc", "clang"))):
        return "Triton needs a C compiler where it runs, gcc or clang"
    headers = Path(sysconfig.get_paths()["include"])
    return "" if (headers / "Python.h").is_file() else f"Triton needs Python.h, not in {headers}"


def _gpu() -> Finding:
    """NVIDIA's first GPU, by its management library or by the CUDA driver."""
    for module, ask in (("pynvml", _by_nvml), ("cuda.bindings.driver", _by_cuda)):
        if _importable(module):
            detail = ask(module)
            return Finding(
                name="GPU",
                ok=detail is not None,
                detail=detail or "no NVIDIA GPU answers",
                remedy="" if detail else _DRIVER_HELP,
            )
    return Finding(
        name="GPU",
        ok=False,
        detail="not looked for: neither nvidia-ml-py nor cuda-python is installed",
        remedy="pip install 'vr-trt[gpu]'",
    )


def _gpu_codecs() -> Iterator[Finding]:
    """NVENC and NVDEC, each used once; nothing is tried where no driver offers a GPU."""
    if present_gpu() is None or not _importable("av"):
        return
    from vr_trt.runtime.card_trials import card_lines
    from vr_trt.runtime.gpu_codecs import codec_lines

    for name, lines in codec_lines().items():
        working = any(line.endswith(" works") for line in lines)
        remedy = "" if working else "not every card has it: the CPU takes its place"
        yield Finding(name=name, ok=working, detail="; ".join(lines), remedy=remedy)
    lines = card_lines()
    stay = all(line.endswith(" there") for line in lines)
    remedy = "" if stay else "frames cross the host instead"
    yield Finding(name="frames on the card", ok=stay, detail="; ".join(lines), remedy=remedy)


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def _by_nvml(module: str) -> str | None:
    nvml = import_module(module)
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle).total // MIB
        return f"{nvml.nvmlDeviceGetName(handle)}, {memory} MiB, driver {nvml.nvmlSystemGetDriverVersion()}"
    except nvml.NVMLError:
        return None


def _by_cuda(module: str) -> str | None:
    try:
        driver = import_module(module)
        ok = driver.CUresult.CUDA_SUCCESS
        if driver.cuInit(0)[0] != ok:
            return None
        error, count = driver.cuDeviceGetCount()
        if error != ok or count < 1:
            return None
        name = driver.cuDeviceGetName(256, 0)[1]
        return str(name.decode().rstrip("\0"))
    except (ImportError, RuntimeError, OSError):  # installed, but without the driver's library
        return None
