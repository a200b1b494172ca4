"""How much more the picture changes where generator windows meet than inside of them."""

import numpy as np
from numpy.typing import NDArray

from vr_trt.bench.clip_windows import Pixels
from vr_trt.engines.profiles import FRAMES_PER_LATENT


def changes(
    x: Pixels,  # [1, 3, F, H, W] in -1..1
) -> NDArray[np.float64]:
    """Mean absolute difference of each frame to the one before it, in levels of 255: [F - 1]."""
    frames = x[0]
    steps = [
        np.abs(frames[:, i + 1].astype(np.float64) - frames[:, i]).mean()
        for i in range(frames.shape[1] - 1)
    ]
    return 127.5 * np.asarray(steps)


def at_joins(frames: int, window: int, overlap: int) -> NDArray[np.bool_]:
    """Of the changes of a shot of so many frames, those in which two windows have a part: [F - 1].

    `window` and `overlap` in latents. The share of the newer window grows from one latent to the
    next, from the first that overlaps to the first that does not.
    """
    stride = window - overlap
    latent = (np.arange(1, frames) + FRAMES_PER_LATENT - 1) // FRAMES_PER_LATENT
    return (latent >= stride) & (latent % stride <= overlap)


def jump(x: Pixels, window: int, overlap: int) -> float:
    """Mean change at the joins by the mean change inside of windows; 1 where no join shows."""
    joins, change = at_joins(x.shape[2], window, overlap), changes(x)
    return float(change[joins].mean() / change[~joins].mean())
