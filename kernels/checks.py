"""What every launch asks of its tensors before it hands their addresses to a kernel."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def check_float(kernel: str, dtype: "torch.dtype") -> None:
    """TypeError unless `dtype` is one that the kernels read and write as they are."""
    import torch

    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise TypeError(f"{kernel} takes fp16, bf16 or fp32, not {dtype}")


def check_tensor(
    what: str,  # "window_attention: keys"
    tensor: "Tensor",
    shape: tuple[int, ...],
    dtype: "torch.dtype",
    device: "torch.device",
) -> None:
    """ValueError unless `tensor` has that shape and dtype, lies on `device` and is contiguous."""
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{what} is {tuple(tensor.shape)}, not {tuple(shape)}")
    if tensor.dtype != dtype or tensor.device != device:
        raise ValueError(f"{what} is {tensor.dtype} on {tensor.device}, not {dtype} on {device}")
    if not tensor.is_contiguous():
        raise ValueError(f"{what} lies with strides {tensor.stride()}, not densely")


def check_picture(what: str, picture: "Tensor", frames: int, height: int, width: int) -> None:
    """TypeError or ValueError unless `picture` is [3, F, >= H, >= W] floats in dense rows."""
    shape, least = tuple(picture.shape), (3, frames, height, width)
    if len(shape) != 4 or shape[:2] != least[:2] or shape[2] < height or shape[3] < width:
        raise ValueError(f"{what} is {shape}, not at least {least}")
    if not picture.is_floating_point() or picture.stride(3) != 1:
        raise TypeError(f"{what} must be dense rows of floats, not {picture.dtype}")
