"""How a convolution is cut into tiles: the tuned sizes of its call, and how many tiles they make."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import triton

from vr_trt.kernels.conv_layer import ConvForm, Extras, PackedConv
from vr_trt.kernels.tuning import capability_of, tuned

if TYPE_CHECKING:
    from torch import Tensor

# For tests on the CPU.
_INTERPRETED = {"BLOCK_M": 128, "BLOCK_N": 32, "BLOCK_K": 32, "PARTS": 2, "FRAMES": 1}


def conv_tiles(conv: PackedConv, height: int, width: int, sizes: Mapping[str, int]) -> int:
    """Tiles of one frame of the output, each phase's by themselves."""
    rows, columns = conv.form.grid(height, width)
    run = columns if conv.form.stride > 1 else width + 2
    return triton.cdiv(rows * run, sizes["BLOCK_M"]) * conv.form.up**2


def pairs_frames(conv: PackedConv, extras: Extras, frames: int) -> bool:
    """Whether programs may compute two frames each of what `conv` makes of `frames` frames."""
    plain = conv.form == ConvForm() and extras.prologue is None and extras.lead_of(conv) == 2
    return plain and frames % 2 == 0


def kind_of(form: ConvForm) -> str:
    """The layer's kind in the table: 1x1x1, sub-pixel, or 3x3x3, which 1x3x3 counts as."""
    return "1x1x1" if form.kernel == 1 else "sub-pixel" if form.up > 1 else "3x3x3"


def tuned_sizes(x: "Tensor", conv: PackedConv, extras: Extras) -> dict[str, int]:
    """Block sizes, warps and stages for the chip that `x` lies on."""
    if not x.is_cuda:  # a test may ask for two frames a program, where two are there
        return _INTERPRETED | ({} if pairs_frames(conv, extras, len(x)) else {"FRAMES": 1})
    return sizes_for(capability_of(x.device), conv, extras, len(x))


def sizes_for(chip: int, conv: PackedConv, extras: Extras, frames: int) -> dict[str, int]:
    """Block sizes, warps and stages for compute capability `chip` as 89, and `frames` of x."""
    outputs = min(256, max(16, triton.next_power_of_2(conv.outputs)))
    sizes = tuned(
        "conv3d", chip, outputs=outputs, bits=8 * conv.weight.element_size(),
        prologue=int(extras.prologue is not None), frames=1 + pairs_frames(conv, extras, frames),
        inputs=16 if conv.channels <= 16 else 32, layer=kind_of(conv.form),
    )  # fmt: skip
    least = 32 // min(conv.weight.element_size(), 2)  # of a tensor core's step
    widest = max(least, triton.next_power_of_2(conv.channels))
    sizes["BLOCK_K"] = min(sizes["BLOCK_K"], widest)
    return sizes
