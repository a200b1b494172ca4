"""Between the stages on a device: rows of items converted to another type, two latents blended.

`python -m vr_trt.kernels.between` writes the PTX that ships in `kernels/ptx`, which the runtime loads
with the driver alone, without Triton (runtime/cuda_kernels.py).
"""

from collections.abc import Iterable, Iterator
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vr_trt.kernels.aot import CompiledKernel, compile_kernel

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).with_name("ptx")
KINDS = ("fp32", "fp16", "bf16")
MADE_BY = "// by Triton "  # begins what ships; another version of Triton writes other PTX
CODES = "u16"  # code values of more than 8 bits, which float32 holds exactly
BLOCK = 1024  # items of a program
OLDEST = 75  # newer chips run the PTX of older ones
_OLDEST_BF16 = 80


def convert_reference(to: "Tensor", source: "Tensor") -> None:
    """`to` [R, C] = `source` [R, C] in to's type, to the nearest even."""
    to.copy_(source)


@triton.jit
def convert_kernel(  # type: ignore[no-untyped-def]
    to,  # [rows, columns], rows `to_pitch` items apart
    to_pitch,
    source,  # likewise
    source_pitch,
    columns,
    BLOCK: tl.constexpr,
):
    """Program (i, row): the i-th BLOCK of a row."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1).to(tl.int64)
    inside = column < columns
    value = tl.load(source + row * source_pitch + column, mask=inside).to(tl.float32)
    tl.store(to + row * to_pitch + column, value.to(to.dtype.element_ty), mask=inside)


def blend_reference(to: "Tensor", older: "Tensor", newer: "Tensor", share: float) -> None:
    """`to` = (1 - share) older + share newer in fp32, each step rounded."""
    to.copy_((1 - share) * older + share * newer)


@triton.jit
def blend_kernel(  # type: ignore[no-untyped-def]
    to,  # [items], as the others
    older,
    newer,
    share,
    items,
    BLOCK: tl.constexpr,
):
    """Program i: the i-th BLOCK. Compiled without fused steps: bit for bit as on the host."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < items
    old = (1.0 - share) * tl.load(older + at, mask=inside)
    tl.store(to + at, old + share * tl.load(newer + at, mask=inside), mask=inside)


def compiled() -> Iterator[tuple[str, CompiledKernel]]:
    """Every kernel by the name of its file."""
    for source, to in (*permutations(KINDS, 2), ("fp32", CODES), (CODES, "fp32")):
        signature = {"to": f"*{to}", "to_pitch": "i32", "source": f"*{source}"}
        signature |= {"source_pitch": "i32", "columns": "i32"}
        chip = _OLDEST_BF16 if "bf16" in (source, to) else OLDEST
        made = compile_kernel(convert_kernel, signature, {"BLOCK": BLOCK}, chip, fused=False)
        yield f"convert_{source}_{to}", made
    signature = dict.fromkeys(("to", "older", "newer"), "*fp32")
    signature |= {"share": "fp32", "items": "i32"}
    yield "blend", compile_kernel(blend_kernel, signature, {"BLOCK": BLOCK}, OLDEST, fused=False)


def without_notes(ptx: str) -> str:
    """The same without comments and debug sections, which name the compiling machine's folders."""
    body = ptx.partition("\t.file\t")[0]
    lines = (line.partition("//")[0].rstrip() for line in body.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("\t.loc"))


def write_ptx(kernels: Iterable[tuple[str, CompiledKernel]]) -> None:
    """Write what ships into its folder, and print the registers that each kernel takes."""
    FOLDER.mkdir(exist_ok=True)
    for name, kernel in kernels:
        text = f"{MADE_BY}{triton.__version__}\n{without_notes(kernel.ptx)}"
        (FOLDER / f"{name}.ptx").write_text(text, encoding="ascii")
        print(f"{name}: {kernel.arch}, {kernel.resources.registers} registers")


if __name__ == "__main__":
    write_ptx(compiled())
