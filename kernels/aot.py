"""Triton kernels compiled ahead of time, for a chip that need not be here.

`compile_for` tells what the compiler made of a kernel: registers, spills, shared memory and
instructions. Tests hold every tuned configuration to that.

`compile_kernel` gives PTX that a driver or TensorRT loads without Triton. Triton appends two
pointers to every kernel's own arguments, for scratch memory. A launcher that knows only the kernel's
signature does not pass them, so they are taken off, and the PTX is assembled once more to prove
that it is still valid.

Both take what @triton.jit made, a `signature` (argument to "*fp16", "i32", "fp32"; ":16" after it
says that the value is divisible by 16, as every tensor's address should be) and `constants` (the
compile-time arguments, with `num_warps` and `num_stages` as a launch takes them).
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vr_trt.errors import ModelError

# The oldest PTX that knows each chip: the driver must be as new as the PTX. 8.7 is CUDA 12.8, and
# covers every chip of this table but the last three.
_PTX_VERSION = 87
_NEWER_PTX = {103: 88, 110: 90, 121: 88}
_SCRATCH_POINTERS = 2
_FIRST_BLACKWELL = 100  # whose assembler is a tool of its own
_ALIGNED = ":16"
_LAUNCH = {"num_warps": 4, "num_stages": 2}
# Bytes of shared memory that one block may ask for: CUDA programming guide, "compute capabilities".
SHARED_LIMIT = {75: 64 << 10, 80: 163 << 10} | dict.fromkeys((86, 89, 120, 121), 99 << 10)
SHARED_LIMIT |= dict.fromkeys((90, 100, 103, 110), 227 << 10)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one thread of a kernel occupies."""

    registers: int
    spilled: int  # bytes of its registers that live in memory instead


@dataclass(frozen=True, kw_only=True, slots=True)
class CompiledKernel:
    """PTX with the kernel's own arguments only, and what a launch must know."""

    name: str
    ptx: str
    cubin: bytes  # of this very PTX
    arch: str  # "sm_89", "sm_90a"
    warps: int
    shared: int  # bytes of dynamic shared memory
    resources: Resources


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled:
    """What the compiler made of a kernel."""

    arch: str  # "sm_90a"
    spills: int  # bytes of a thread's registers that live in memory instead
    registers: int
    shared_bytes: int  # of a block
    instructions: tuple[str, ...]  # in order: "HGMMA.64x128x16.F32", "LDGSTS.E.BYPASS.128"

    def count(self, *starts: str) -> int:
        """How many instructions begin with one of `starts`."""
        return sum(name.startswith(starts) for name in self.instructions)

    @property
    def serialised(self) -> bool:
        """Whether each product of sm_90 waits for the one before, as its assembler makes of some."""
        products = self.count("HGMMA", "QGMMA")
        return 1 < products <= self.count("WARPGROUP.ARRIVE")


def compile_for(
    kernel: Any, signature: Mapping[str, str], constants: Mapping[str, Any], chip: int
) -> Compiled:
    """Compile `kernel` for compute capability `chip` as 89, and read the result.

    ModelError where Triton is missing.
    """
    compiled = _compile(kernel, signature, constants, chip, fused=True)
    cubin = compiled.asm["cubin"]
    resources = read_resources(cubin)
    return Compiled(
        arch=target_of(compiled.asm["ptx"]),
        spills=resources.spilled,
        registers=resources.registers,
        shared_bytes=compiled.metadata.shared,
        instructions=tuple(instructions(cubin)),
    )


def compile_kernel(
    kernel: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    chip: int,
    *,
    fused: bool = True,
) -> CompiledKernel:
    """Compile for compute capability `chip` as 89; ModelError where that is not possible.

    `fused`: a product and a sum may become one step, which is rounded once.
    """
    compiled = _compile(kernel, signature, constants, chip, fused=fused)
    _check_launch(compiled.metadata)
    name, ptx = compiled.metadata.name, strip_scratch(compiled.asm["ptx"], compiled.metadata.name)
    arch = target_of(ptx)
    cubin = assemble(ptx, arch)
    return CompiledKernel(
        name=name,
        ptx=ptx,
        cubin=cubin,
        arch=arch,
        warps=compiled.metadata.num_warps,
        shared=compiled.metadata.shared,
        resources=read_resources(cubin),
    )


def _compile(
    kernel: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    chip: int,
    *,
    fused: bool,
) -> Any:
    """What Triton's compiler gives."""
    triton = _triton()
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    kinds = {name: signature.get(name, "constexpr").removesuffix(_ALIGNED) for name in names}
    attributes = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name, kind in signature.items()
        if kind.endswith(_ALIGNED)
    }
    fixed = {name: value for name, value in constants.items() if name not in _LAUNCH}
    options = {name: constants.get(name, default) for name, default in _LAUNCH.items()}
    options |= {"enable_fp_fusion": fused, "ptx_version": _NEWER_PTX.get(chip, _PTX_VERSION)}
    source = ASTSource(kernel, kinds, fixed, attributes)
    return triton.compile(source, target=GPUTarget("cuda", chip, 32), options=options)


def why_unavailable() -> str | None:
    """None, or why kernels cannot be compiled here and the command that changes it."""
    try:
        _triton()
    except ModelError as error:
        return str(error)
    return None


def _triton() -> Any:
    try:
        import triton
    except ModuleNotFoundError:
        raise ModelError(
            "compiling kernels needs triton: install it with `pip install 'triton>=3.6'`"
        ) from None
    return triton


def _check_launch(metadata: Any) -> None:
    """ModelError for a kernel that needs more of a launch than a grid, a block and memory."""
    wants = {
        "scratch memory": metadata.global_scratch_size,
        "clusters": metadata.num_ctas > 1,
        "a cooperative launch": metadata.launch_cooperative_grid,
        "a dependent launch": metadata.launch_pdl,
        "tensor memory": getattr(metadata, "tmem_size", 0),
    }
    for want, wanted in wants.items():
        if wanted:
            raise ModelError(f"kernel {metadata.name} needs {want}: it cannot be launched from PTX")


def parameters(ptx: str, name: str) -> list[str]:
    """The declarations of kernel `name`'s parameters, in order; ModelError if it is not there."""
    return [part.strip() for part in _declared(ptx, name)[1].split(",") if part.strip()]


def _declared(ptx: str, name: str) -> re.Match[str]:
    found = re.search(rf"\.visible\s+\.entry\s+{re.escape(name)}\s*\(([^)]*)\)", ptx)
    if found is None:
        raise ModelError(f"the PTX has no kernel {name}")
    return found


def strip_scratch(ptx: str, name: str) -> str:
    """`ptx` without the last two parameters of kernel `name`; ModelError if it uses them."""
    found, declared = _declared(ptx, name), parameters(ptx, name)
    kept, dropped = declared[:-_SCRATCH_POINTERS], declared[-_SCRATCH_POINTERS:]
    if len(dropped) < _SCRATCH_POINTERS or not all(re.search(r"\.[bu]64\b", p) for p in dropped):
        raise ModelError(f"kernel {name} does not end with two scratch pointers: {declared}")
    rest = ptx[: found.start(1)] + ptx[found.end(1) :]
    for parameter in dropped:
        symbol = parameter.split()[-1]
        if re.search(rf"(?<![\w$]){re.escape(symbol)}(?![\w$])", rest):
            raise ModelError(f"kernel {name} uses its scratch pointer {symbol}: give it none")
    inner = "".join(f"\n\t{part}," for part in kept).removesuffix(",")
    return f"{ptx[: found.start(1)]}{inner}\n{ptx[found.end(1) :]}"


def target_of(ptx: str) -> str:
    """The chip that `ptx` is for, as in its .target line: "sm_90a"."""
    found = re.search(r"^\s*\.target\s+(\w+)", ptx, re.MULTILINE)
    if found is None:
        raise ModelError("the PTX names no .target")
    return found[1]


def assemble(ptx: str, arch: str) -> bytes:
    """The cubin that Triton's own assembler makes of `ptx`; ModelError with its first complaint."""
    digits = re.search(r"\d+", arch)
    new = digits is not None and int(digits[0]) >= _FIRST_BLACKWELL
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx, encoding="ascii")
        command = [_tool("ptxas-blackwell" if new else "ptxas"), f"--gpu-name={arch}"]
        done = _run([*command, str(source), "-o", str(target)])
        if done.returncode:
            complaint = (done.stderr.strip() or "no reason given").splitlines()[0]
            raise ModelError(f"the PTX does not assemble for {arch}: {complaint}")
        return target.read_bytes()


def read_resources(cubin: bytes) -> Resources:
    """What the one kernel in `cubin` occupies, as the vendor's tool reads it."""
    text = _looked_into(cubin, "cuobjdump", "-res-usage")
    sizes = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text))
    if "REG" not in sizes:
        raise ModelError(f"the cubin's resources cannot be read: {text.strip()[:200]}")
    return Resources(
        registers=int(sizes["REG"]),
        spilled=int(sizes.get("STACK", 0)) + int(sizes.get("LOCAL", 0)),
    )


def instructions(cubin: bytes) -> list[str]:
    """The names of the machine instructions in `cubin`, in order: "FFMA", "LDG.E.128"."""
    text = _looked_into(cubin, "nvdisasm", "-c")
    return re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", text, re.MULTILINE)


def _looked_into(cubin: bytes, tool: str, option: str) -> str:
    """What one of the vendor's tools prints about `cubin`."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return _run([_tool(tool), option, file.name]).stdout


def _tool(name: str) -> str:
    path = Path(_triton().__file__).parent / "backends" / "nvidia" / "bin" / name
    if not path.is_file():
        raise ModelError(f"this triton brings no {name}: install triton from its own wheel")
    return str(path)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
