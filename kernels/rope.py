"""Rotary position tables, per window shape. Source: network spec §4.4.

Every table has one column per pair of head dimensions, [.., head_width / 2]; pairs that the model
leaves alone have cos 1 and sin 0, so that applying a table needs no special case.

"language" (3B): integer positions local to the window, the time axis starting after the text;
text is rotated as well. "pixel" (7B): each axis of a window is -1..1 whatever its length; text is
not rotated.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rope = Literal["language", "pixel"]
Tables = tuple[NDArray[np.float32], NDArray[np.float32]]  # cos, sin
F32 = np.float32


def frequencies(rope: Rope, head_width: int) -> NDArray[np.float32]:
    """[pairs per axis]: the rotation per unit of position; the checkpoints' `freqs` buffer."""
    if rope == "language":
        axis = head_width // 3  # an odd one rotates one dimension less, but is not rounded here
        return (10000.0 ** (-np.arange(0, axis - 1, 2) / axis)).astype(F32)
    return (np.pi * np.linspace(1.0, 128.0, head_width // 2 // 3 // 2)).astype(F32)


def _cos_sin(angles: NDArray[np.float32], head_width: int) -> Tables:
    """Cosine and sine of [L, pairs] angles, padded with identity pairs to head_width / 2."""
    cos = np.ones((len(angles), head_width // 2), F32)
    sin = np.zeros_like(cos)
    cos[:, : angles.shape[1]] = np.cos(angles)
    sin[:, : angles.shape[1]] = np.sin(angles)
    return cos, sin


def _positions(rope: Rope, axis: int, length: int, text_tokens: int) -> NDArray[np.float32]:
    """[length]: the positions along one axis (0 time, 1 rows, 2 columns) of a window."""
    if rope == "language":
        return np.arange(length, dtype=F32) + F32(text_tokens if axis == 0 else 0)
    return np.linspace(-1.0, 1.0, length, dtype=F32)  # a single position is -1


@lru_cache(maxsize=256)
def video_tables(
    rope: Rope, shape: tuple[int, int, int], text_tokens: int, head_width: int
) -> Tables:
    """cos and sin [L, head_width / 2] float32 of the tokens of a window of `shape` (t, h, w)."""
    freqs = frequencies(rope, head_width)
    axes = [
        _positions(rope, axis, length, text_tokens)[:, None] * freqs
        for axis, length in enumerate(shape)
    ]
    t, h, w = np.meshgrid(*(np.arange(length) for length in shape), indexing="ij")
    angles = np.concatenate(
        [axis[i.reshape(-1)] for axis, i in zip(axes, (t, h, w), strict=True)], axis=1
    )
    return _cos_sin(angles, head_width)


def text_tables(rope: Rope, text_tokens: int, head_width: int) -> Tables:
    """cos and sin [text, head_width / 2] float32 of the text tokens."""
    if rope == "pixel":
        return _cos_sin(np.zeros((text_tokens, 0), F32), head_width)
    angle = np.arange(text_tokens, dtype=F32)[:, None] * frequencies(rope, head_width)
    return _cos_sin(np.concatenate([angle] * 3, axis=1), head_width)
