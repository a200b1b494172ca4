"""How far a clip is from another, for training and for reports; clips are [B, 3, T, H, W]."""

import torch
from torch import Tensor
from torch.nn import functional as F

CHARBONNIER = 1e-3  # below this an error counts squared
BLOCK = 8  # pixels of one latent: a grid of this pitch is what a decoder adds to flat areas
SSIM_WINDOW = 7
_C1, _C2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # of SSIM, for pictures in -1..1


def _slopes(x: Tensor) -> tuple[Tensor, ...]:
    """Differences to the next column, row and frame."""
    across = x[..., 1:] - x[..., :-1]
    down = x[..., 1:, :] - x[..., :-1, :]
    if x.shape[2] == 1:
        return across, down
    return across, down, x[:, :, 1:] - x[:, :, :-1]


def picture_loss(out: Tensor, target: Tensor) -> Tensor:
    """Error (Charbonnier), error of the slopes in space and time, structure, and the grid."""
    error = out - target
    loss = (error.square() + CHARBONNIER**2).sqrt().mean() + 2.0 * error.square().mean()
    for slope in _slopes(error):
        loss = loss + 0.2 * slope.abs().mean()
    return loss + 0.1 * (1 - ssim(out, target)) + 0.5 * grid(error)


def squared_error(out: Tensor, target: Tensor) -> Tensor:
    """Mean square of the error, and five times what of it repeats every 8 pixels.

    An absolute error is least where the detail that cannot be known is left out. A squared one is
    least at its mean, which is sharper.
    """
    error = out - target
    return error.square().mean() + 4 * _pattern(error).square().mean()


def ssim(out: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity over square windows of 7 pixels, every frame and colour alone."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, SSIM_WINDOW, 1)

    x, y = (side.transpose(1, 2).flatten(0, 1) for side in (out, target))
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x.square(), mean(y * y) - mean_y.square()
    both = mean(x * y) - mean_x * mean_y
    value = (2 * mean_x * mean_y + _C1) * (2 * both + _C2)
    return (value / ((mean_x.square() + mean_y.square() + _C1) * (var_x + var_y + _C2))).mean()


def grid(error: Tensor) -> Tensor:
    """The part of the error that repeats every 8 pixels of a clip; sides are multiples of 8."""
    return _pattern(error).abs().mean()


def _pattern(error: Tensor) -> Tensor:  # [B, 3, T, H, W] -> [B, 3, 8, 8]
    tiles = error.unflatten(4, (-1, BLOCK)).unflatten(3, (-1, BLOCK))
    pattern = tiles.mean((2, 3, 5))
    return pattern - pattern.mean((2, 3), keepdim=True)


def psnr(out: Tensor, target: Tensor) -> float:
    """Peak signal to noise ratio in dB of pictures in -1..1, pooled over all of them."""
    error = F.mse_loss(out.float().clamp(-1, 1), target).item()
    return float(10 * torch.log10(torch.tensor(4 / max(error, 1e-12))))
