"""What every launch asks of its tensors before it hands their addresses to a kernel."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def check_tensor(
    what: str,  # "window_attention: keys"
    tensor: "Tensor",
    shape: tuple[int, ...],
    dtype: "torch.dtype",
    device: "torch.device",
) -> None:
    """ValueError unless `tensor` is of that shape and kind, there, and lies densely."""
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{what} is {tuple(tensor.shape)}, not {tuple(shape)}")
    if tensor.dtype != dtype or tensor.device != device:
        raise ValueError(f"{what} is {tensor.dtype} on {tensor.device}, not {dtype} on {device}")
    if not tensor.is_contiguous():
        raise ValueError(f"{what} lies with strides {tensor.stride()}, not densely")
