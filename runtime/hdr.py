"""HDR's static metadata: read from a frame, and told to the encoders that can carry it."""

import struct
from dataclasses import dataclass
from fractions import Fraction

import av
from av.sidedata.sidedata import SideData

TRANSFERS = {16: "PQ", 18: "HLG"}  # H.273
_UNSPECIFIED = 2
_MASTERING = struct.Struct("<20i2i")  # FFmpeg's AVMasteringDisplayMetadata
_DYNAMIC = {
    "DOVI_METADATA": "Dolby Vision",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "DYNAMIC_HDR_PLUS": "HDR10+",
}
_LIGHT = struct.Struct("<2I")  # AVContentLightMetadata


@dataclass(frozen=True, kw_only=True, slots=True)
class HdrMetadata:
    """SMPTE ST 2086 and CTA-861.3; None for what a file does not say."""

    # x and y of red, green, blue and white (CIE 1931); darkest and brightest in cd/m²
    display: tuple[Fraction, ...] | None = None
    light: tuple[int, int] | None = None  # brightest pixel and brightest frame's mean, cd/m²

    def x265(self) -> list[str]:
        """x265's parameters: chromaticity in 1/50000, luminance in 1/10000."""
        found = []
        if self.display is not None:
            points = [round(value * 50_000) for value in self.display[:8]]
            low, high = (round(value * 10_000) for value in self.display[8:])
            found.append(f"master-display={_points(points)}L({high},{low})")
        if self.light is not None:
            found.append(f"max-cll={self.light[0]},{self.light[1]}")
        return ["hdr10=1", "repeat-headers=1", *found] if found else []

    def svt_av1(self) -> list[str]:
        """SVT-AV1's parameters: plain numbers."""
        found = []
        if self.display is not None:
            points = [f"{float(value):.5f}" for value in self.display[:8]]
            low, high = (f"{float(value):.4f}" for value in self.display[8:])
            found.append(f"mastering-display={_points(points)}L({high},{low})")
        if self.light is not None:
            found.append(f"content-light={self.light[0]},{self.light[1]}")
        return found


def _points(values: list[int] | list[str]) -> str:
    """Green, blue, red, white: the encoders' order."""
    red, green, blue, white = (f"({values[i]},{values[i + 1]})" for i in (0, 2, 4, 6))
    return f"G{green}B{blue}R{red}WP{white}"


def read_hdr(frame: av.VideoFrame) -> HdrMetadata | None:
    """What a decoded frame says about its mastering; None if nothing."""
    display, light = None, None
    if data := _side_data(frame, "MASTERING_DISPLAY_METADATA", _MASTERING.size):
        *numbers, has_primaries, has_luminance = _MASTERING.unpack(data[: _MASTERING.size])
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        if has_primaries and has_luminance and all(below for _, below in pairs):
            display = tuple(Fraction(above, below) for above, below in pairs)
    if data := _side_data(frame, "CONTENT_LIGHT_LEVEL", _LIGHT.size):
        brightest, mean = _LIGHT.unpack(data[: _LIGHT.size])
        light = brightest, mean
    return HdrMetadata(display=display, light=light) if display or light else None


def dynamic_metadata(frame: av.VideoFrame) -> str | None:
    """A note where a frame has metadata of its own scene, which no encoder here takes."""
    for name, kind in _DYNAMIC.items():
        if _side_data(frame, name, 1):
            return f"{kind} metadata is dropped: the picture is that of its base layer"
    return None


def is_dolby_vision_alone(frame: av.VideoFrame) -> bool:
    """True for profile 5: its base layer is no picture for other players, and so it has no tags."""
    known = any(_side_data(frame, name, 1) for name in ("DOVI_METADATA", "DOVI_RPU_BUFFER"))
    return known and frame.colorspace == frame.color_trc == _UNSPECIFIED


def _side_data(frame: av.VideoFrame, name: str, size: int) -> bytes | None:
    try:
        data = frame.side_data.get(name)
    except ValueError:  # PyAV cannot list side data of a kind that is newer than itself
        return None
    content = bytes(data) if isinstance(data, SideData) else b""
    return content if len(content) >= size else None


def hdr_notes(hdr: HdrMetadata | None, transfer: int, codec: str, bits: int) -> list[str]:
    """What of HDR does not reach an output, one line each."""
    notes = []
    if hdr is not None and codec not in ("hevc", "av1"):
        notes.append(f"{codec} does not carry HDR mastering metadata; hevc and av1 by software do")
    if transfer in TRANSFERS and bits < 10:
        notes.append(f"{TRANSFERS[transfer]} in {bits} bits shows bands: --bits 10 avoids them")
    return notes
