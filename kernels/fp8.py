"""Numbers in eight bits (E4M3), with a scale for a whole tensor or for each row: value = code * scale.

Scales are measured beforehand on real activations and lie on the device in fp32. Rows have scales of
their own where tokens of video and of text lie in one tensor. What is larger than 448 scales becomes
448 scales, for E4M3 has no infinity.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = tl.constexpr(448.0)  # of E4M3
FIRST_CHIP = 89


def quantised_reference(x: "Tensor", scale: "Tensor") -> "Tensor":
    """The codes of `x` [N, ..] in float8_e4m3fn, to the nearest, for `scale` [1] or [N] fp32."""
    import torch

    return (
        (x.float() / scale.view(-1, *[1] * (x.ndim - 1)))
        .clamp(-LARGEST.value, LARGEST.value)
        .to(torch.float8_e4m3fn)
    )


@triton.jit
def quantised(value, scale, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
    """fp32 `value` as codes for `scale`, inside a kernel."""
    code = value / scale
    return tl.minimum(tl.maximum(code, -LARGEST), LARGEST).to(dtype)


def check_scale(kernel: str, scale: "Tensor", like: "Tensor") -> None:
    """TypeError or ValueError unless `scale` is fp32, one or one a row of `like`, on its device.

    ValueError for a device that has no fp8.
    """
    import torch

    from vr_trt.kernels.tuning import capability_of

    whole = scale.numel() in (1, len(like)) and scale.is_contiguous()
    if scale.dtype != torch.float32 or not whole or scale.device != like.device:
        raise TypeError(
            f"{kernel} quantises by one fp32, or one a row, beside its input, not {scale.dtype} "
            f"{tuple(scale.shape)} on {scale.device}"
        )
    if like.is_cuda and (chip := capability_of(like.device)) < FIRST_CHIP:
        raise ValueError(f"{kernel}: sm_{chip} has no fp8: take fp16 or bf16")
