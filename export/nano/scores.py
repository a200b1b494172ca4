"""PSNR, SSIM and flicker of a clip [T, H, W, 3] in 0..1 against the sharp one, by scikit-image."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]  # [T, H, W, 3] in 0..1
Flow = NDArray[np.float32]  # [2, H, W]: rows and columns from a frame to the next
SAME = 0.04  # a sharp pixel that its motion changes by more is covered or uncovered


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """How the sharp clip moves: for each pair of frames where pixels go, and which can be seen."""

    flows: tuple[Flow, ...]
    seen: tuple[NDArray[np.bool_], ...]  # [H, W]


def likeness(ours: Pictures, sharp: Pictures) -> tuple[float, float]:
    """PSNR in dB and SSIM of a clip, each the mean over its frames."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    psnrs, ssims = [], []
    for frame, truth in zip(ours, sharp, strict=True):
        psnr = peak_signal_noise_ratio(truth, frame, data_range=1.0)
        ssim = structural_similarity(truth, frame, channel_axis=2, data_range=1.0)
        psnrs.append(min(60.0, psnr))
        ssims.append(ssim)
    return float(np.mean(psnrs)), float(np.mean(ssims))


def motion(sharp: Pictures) -> Motion:
    """The optical flow (TV-L1) of the sharp clip."""
    from skimage.registration import optical_flow_tvl1

    flows = [optical_flow_tvl1(a, b) for a, b in pairwise(sharp.mean(-1))]
    steps = zip(pairwise(sharp), flows, strict=True)
    errors = [np.abs(_follow(then, flow) - now) for (now, then), flow in steps]
    return Motion(tuple(flows), tuple(error.max(-1) < SAME for error in errors))


def flicker(ours: Pictures, motion: Motion) -> float:
    """Warping error: the rms change of what should be the same along the motion, in 1/255."""
    changes = [
        (_follow(then, flow) - now)[seen]
        for (now, then), flow, seen in zip(pairwise(ours), motion.flows, motion.seen, strict=True)
    ]
    return float(255 * np.sqrt(np.mean(np.square(np.concatenate(changes)))))


def _follow(then: Pictures, flow: Flow) -> Pictures:
    """The next frame [H, W, 3], each pixel taken from where the flow says it went."""
    from skimage.transform import warp

    rows, columns = np.mgrid[: then.shape[0], : then.shape[1]].astype(np.float32) + flow
    planes = [warp(then[..., c], np.stack([rows, columns]), mode="edge") for c in range(3)]
    return np.stack(planes, -1).astype(np.float32)


def sharpened(clip: Pictures) -> Pictures:
    """Every frame sharpened on its own: unsharp masking, the flicker that restoring must undercut."""
    from skimage.filters import unsharp_mask

    frames = [unsharp_mask(frame, radius=1.5, amount=1.0, channel_axis=2) for frame in clip]
    return np.stack(frames).astype(np.float32)
