"""Numbers in eight bits (E4M3) with one scale for a whole tensor: value = code * scale.

The scale is measured beforehand on real activations and lies on the device as one fp32. What is
larger than 448 scales becomes 448 scales: E4M3 has no infinity to become.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = tl.constexpr(448.0)  # of E4M3
FIRST_CHIP = 89


def quantised_reference(x: "Tensor", scale: "Tensor") -> "Tensor":
    """The codes of `x` in float8_e4m3fn, to the nearest, for `scale` [1] fp32."""
    import torch

    return (x.float() / scale).clamp(-LARGEST.value, LARGEST.value).to(torch.float8_e4m3fn)


@triton.jit
def quantised(value, scale, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
    """fp32 `value` as codes for the scale that `scale` points to, inside a kernel."""
    code = value / tl.load(scale)
    return tl.minimum(tl.maximum(code, -LARGEST), LARGEST).to(dtype)


def check_scale(kernel: str, scale: "Tensor", like: "Tensor") -> None:
    """TypeError or ValueError unless `scale` is one fp32 on `like`'s device, which has fp8."""
    import torch

    from vr_trt.kernels.tuning import capability_of

    if scale.dtype != torch.float32 or scale.numel() != 1 or scale.device != like.device:
        raise TypeError(
            f"{kernel} quantises by one fp32 beside its input, not {scale.dtype} "
            f"{tuple(scale.shape)} on {scale.device}"
        )
    if like.is_cuda and (chip := capability_of(like.device)) < FIRST_CHIP:
        raise ValueError(f"{kernel}: sm_{chip} has no fp8: take fp16 or bf16")
