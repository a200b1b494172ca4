"""How far a picture is from another, for training and for reports."""

import torch
from torch import Tensor
from torch.nn import functional as F


def _slopes(x: Tensor) -> tuple[Tensor, ...]:
    """Differences to the next column, row and frame of [B, 3, T, H, W]."""
    across = x[..., 1:] - x[..., :-1]
    down = x[..., 1:, :] - x[..., :-1, :]
    if x.shape[2] == 1:
        return across, down
    return across, down, x[:, :, 1:] - x[:, :, :-1]


def picture_loss(out: Tensor, target: Tensor) -> Tensor:
    """Absolute error at three scales, of the slopes, and some squared error; [B, 3, T, H, W]."""
    out = out.float()
    loss = F.l1_loss(out, target) + 2.0 * F.mse_loss(out, target)
    for ours, theirs in zip(_slopes(out), _slopes(target), strict=True):
        loss = loss + 0.3 * F.l1_loss(ours, theirs)
    for scale in (2, 4):
        window = (1, scale, scale)
        loss = loss + 0.5 * F.l1_loss(F.avg_pool3d(out, window), F.avg_pool3d(target, window))
    return loss


def spread_loss(mean: Tensor, logvar: Tensor) -> Tensor:
    """Divergence of the latents' distribution from the standard normal one, per element."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def psnr(out: Tensor, target: Tensor) -> float:
    """Peak signal to noise ratio in dB of pictures in -1..1, pooled over all of them."""
    error = F.mse_loss(out.float().clamp(-1, 1), target).item()
    return float(10 * torch.log10(torch.tensor(4 / max(error, 1e-12))))
