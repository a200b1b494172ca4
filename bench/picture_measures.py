"""What is measured of one picture against another, and of a picture against the one before it.

Pictures are [H, W, 3] RGB float32 in 0..1. Definitions are those of the libraries named.
"""

import numpy as np
from numpy.typing import NDArray

from vr_trt.bench.rgb_film import Picture01

HIGHEST_PSNR = 100.0  # of equal pictures, whose PSNR has no end
SAME = 0.04  # a pixel of the guide that its motion changes by more is covered or uncovered
SMALLEST = 16  # pixels of a side whose motion is looked for

Mask = NDArray[np.bool_]  # [H, W]


def psnr(ours: NDArray[np.float32], truth: NDArray[np.float32], peak: float = 1.0) -> float:
    """Peak signal to noise ratio in dB over all values, whose range is `peak`.

    100 at most; NaN where anything is.
    """
    error = float(np.mean(np.square(ours.astype(np.float64) - truth)))
    if error == 0:
        return HIGHEST_PSNR
    return min(float(10 * np.log10(peak**2 / error)), HIGHEST_PSNR)  # NaN first: it stays


def ssim(ours: Picture01, truth: Picture01) -> float:
    """Structural similarity with the window and constants of Wang et al., 2004, by scikit-image.

    The mean over the three channels; pictures narrower than the window get a smaller one.
    """
    from skimage.metrics import structural_similarity

    gaussian = min(ours.shape[:2]) >= 11  # the window of sigma 1.5
    small = {"win_size": max(1, (min(ours.shape[:2]) - 1) // 2 * 2 + 1)}
    standard = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    options = standard if gaussian else small
    if not gaussian and small["win_size"] < 3:
        return float(np.array_equal(ours, truth))  # a row of pixels has no structure
    return float(structural_similarity(truth, ours, channel_axis=2, data_range=1.0, **options))


def colour_difference(ours: Picture01, truth: Picture01) -> float:
    """Mean CIEDE2000 difference, by scikit-image: 1 is just visible, side by side."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    return float(deltaE_ciede2000(rgb2lab(truth), rgb2lab(ours)).mean())


def change(now: Picture01, before: Picture01) -> float:
    """Mean absolute difference of two pictures that follow each other, in levels of 255."""
    return float(255 * np.abs(now - before).mean())


class Motion:
    """How a guide film moves from one picture to the next, by OpenCV's DIS optical flow."""

    def __init__(self, before: Picture01, now: Picture01) -> None:
        import cv2

        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        first, second = ((255 * p.mean(2)).astype(np.uint8) for p in (before, now))
        still = np.zeros((*first.shape, 2), np.float32)
        # DIS takes no picture that is smaller than its patches.
        moves = min(first.shape) >= SMALLEST
        # [H, W, 2]: columns and rows from the first picture to the second
        self._flow = np.asarray(flow.calc(first, second, still)) if moves else still
        self.seen: Mask = np.abs(self._follow(now) - before).max(2) < SAME

    def flicker(self, before: Picture01, now: Picture01) -> float:
        """Warping error (Lai et al., 2018): rms change along the motion, in levels of 255.

        Only of pixels that the guide shows in both pictures; 0 where it shows none.
        """
        changed = (self._follow(now) - before)[self.seen]
        return float(255 * np.sqrt(np.mean(np.square(changed)))) if changed.size else 0.0

    def _follow(self, now: Picture01) -> Picture01:
        """`now`, each pixel taken from where the flow says it went."""
        import cv2

        rows, columns = np.indices(now.shape[:2], dtype=np.float32)
        to = columns + self._flow[..., 0], rows + self._flow[..., 1]
        moved = cv2.remap(now, *to, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return moved.astype(np.float32, copy=False)
