"""Where a pixel format of FFmpeg keeps its code values, for reading and writing planes by hand.

Colour never passes through swscale: taking a frame apart and putting one together are both
re-layouts without loss, described by one table entry per format.
"""

import re
from dataclasses import dataclass
from functools import cache

from av.video.format import VideoFormat

from vr_trt.runtime.frames import Layout

# Three components a pixel: bytes (or 16-bit words) before red, green and blue, and per pixel.
_PACKED_RGB = {
    "rgb24": (0, 1, 2, 3),
    "bgr24": (2, 1, 0, 3),
    "rgba": (0, 1, 2, 4),
    "rgb0": (0, 1, 2, 4),
    "bgra": (2, 1, 0, 4),
    "bgr0": (2, 1, 0, 4),
    "argb": (1, 2, 3, 4),
    "0rgb": (1, 2, 3, 4),
    "abgr": (3, 2, 1, 4),
    "0bgr": (3, 2, 1, 4),
    "rgb48": (0, 1, 2, 3),
    "bgr48": (2, 1, 0, 3),
    "rgba64": (0, 1, 2, 4),
    "bgra64": (2, 1, 0, 4),
}
# Offsets of y, u, v; luma every second byte, chroma every fourth.
_PACKED_YUV422 = {"yuyv422": (0, 1, 3), "uyvy422": (1, 0, 2), "yvyu422": (0, 3, 1)}
_CHROMA = {
    "420": (2, 2),
    "422": (2, 1),
    "444": (1, 1),
    "440": (1, 2),
    "411": (4, 1),
    "410": (4, 4),
}
_SEMI_PLANAR = {"nv12": (2, 2), "nv21": (2, 2), "nv16": (2, 1), "nv24": (1, 1), "nv42": (1, 1)}
_HIGH_BITS = {"0": (2, 2), "2": (2, 1), "4": (1, 1)}  # p010, p210, p410 and their like
_DEPTHS = (8, 9, 10, 12, 14, 16)  # bits for which FFmpeg has planar formats


@dataclass(frozen=True, slots=True)
class Component:
    """Code values of one colour component: every `step`-th item of a plane from `offset` on."""

    plane: int
    offset: int = 0
    step: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """The arrangement of one pixel format; alpha and padding are not among the components."""

    layout: Layout
    bits: int
    chroma: tuple[int, int]
    components: tuple[Component, ...]  # y,u,v or r,g,b; one for grey
    big_endian: bool = False
    shift: int = 0  # unused low bits of an item

    @property
    def item(self) -> str:
        """NumPy's name of one stored item."""
        if self.bits == 8:
            return "u1"
        return ">u2" if self.big_endian else "<u2"


@cache
def packing_of(
    name: str,  # FFmpeg's pixel format, "yuv420p10le"
) -> Packing | None:
    """The arrangement of a pixel format, or None for one that must be converted first."""
    big_endian = name.endswith("be")
    base = name.removesuffix("le").removesuffix("be")
    found = _planar(base) or _semi_planar(base) or _packed(base)
    if found is None:
        return None
    layout, bits, chroma, shift, components = found
    return Packing(
        layout=layout,
        bits=bits,
        chroma=chroma,
        shift=shift,
        components=components,
        big_endian=big_endian,
    )


_Found = tuple[Layout, int, tuple[int, int], int, tuple[Component, ...]]


def _planar(base: str) -> _Found | None:
    if match := re.fullmatch(r"yuv(?:a|j)?(\d{3})p(\d*)", base):
        planes = tuple(Component(plane) for plane in range(3))
        return "yuv", int(match[2] or 8), _CHROMA[match[1]], 0, planes
    if match := re.fullmatch(r"gbra?p(\d*)", base):
        planes = tuple(Component(plane) for plane in (2, 0, 1))
        return "rgb", int(match[1] or 8), (1, 1), 0, planes
    if match := re.fullmatch(r"gray(\d*)", base):
        return "gray", int(match[1] or 8), (1, 1), 0, (Component(0),)
    if base in ("ya8", "ya16"):
        return "gray", int(base[2:]), (1, 1), 0, (Component(0, step=2),)
    return None


def _semi_planar(base: str) -> _Found | None:
    if base in _SEMI_PLANAR:
        first, second = (1, 0) if base in ("nv21", "nv42") else (0, 1)
        interleaved = (Component(0), Component(1, first, 2), Component(1, second, 2))
        return "yuv", 8, _SEMI_PLANAR[base], 0, interleaved
    if match := re.fullmatch(r"p([024])(10|12|16)", base):
        interleaved = (Component(0), Component(1, 0, 2), Component(1, 1, 2))
        return "yuv", int(match[2]), _HIGH_BITS[match[1]], 16 - int(match[2]), interleaved
    return None


def _packed(base: str) -> _Found | None:
    if base in _PACKED_RGB:
        *offsets, step = _PACKED_RGB[base]
        bits = 16 if base[-2:] in ("48", "64") else 8
        return "rgb", bits, (1, 1), 0, tuple(Component(0, offset, step) for offset in offsets)
    if base in _PACKED_YUV422:
        y, u, v = _PACKED_YUV422[base]
        return "yuv", 8, (2, 1), 0, (Component(0, y, 2), Component(0, u, 4), Component(0, v, 4))
    return None


def planar_name(layout: Layout, bits: int, chroma: tuple[int, int]) -> str:
    """FFmpeg's name of the little-endian planar format of that kind."""
    depth = "" if bits == 8 else f"{bits}le"
    if layout == "gray":
        return f"gray{depth}"
    if layout == "rgb":
        return f"gbrp{depth}"
    digits = next(digits for digits, factors in _CHROMA.items() if factors == chroma)
    return f"yuv{digits}p{depth}"


def nearest_planar(
    name: str,  # any software pixel format of FFmpeg
) -> str:
    """The planar format of the same family and at least the same depth, for swscale to fill.

    The family (RGB, YUV with its subsampling, grey) is never left, so no colour matrix is applied.
    """
    fmt = VideoFormat(name, 16, 16)
    colour = [part for part in fmt.components if not part.is_alpha]
    wanted = 8 if fmt.has_palette else min(16, max(part.bits for part in colour))
    bits = next(depth for depth in _DEPTHS if depth >= wanted)
    if fmt.is_rgb or fmt.has_palette or fmt.is_bayer:
        return planar_name("rgb", bits, (1, 1))
    if len(colour) < 3:
        return planar_name("gray", bits, (1, 1))
    chroma = (
        16 // min(part.width for part in colour),
        16 // min(part.height for part in colour),
    )
    return planar_name("yuv", bits, chroma)
