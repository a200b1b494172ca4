"""How a stored picture must be turned to be looked at: display matrices and EXIF."""

import math
import struct
from pathlib import Path

import av
from av.sidedata.sidedata import SideData

# EXIF orientation: (degrees clockwise, then mirrored left to right)
_EXIF = {
    1: (0, False),
    2: (0, True),
    3: (180, False),
    4: (180, True),
    5: (90, True),
    6: (90, False),
    7: (270, True),
    8: (270, False),
}
_ORIENTATION_TAG = 0x112


def orientation(
    frame: av.VideoFrame,
    path: Path,
) -> tuple[int, bool, str | None]:
    """Degrees clockwise (0, 90, 180, 270), mirrored afterwards, and a note where inexact."""
    exif = _jpeg_orientation(path)
    if exif is not None:
        return *_EXIF[exif], None
    matrix = _display_matrix(frame)
    degrees, mirrored = float(-frame.rotation), False
    if matrix is not None:
        (x_right, x_down), (y_right, y_down) = matrix
        mirrored = x_right * y_down - x_down * y_right < 0
        degrees = math.degrees(math.atan2(x_down, -x_right if mirrored else x_right))
    turns = round(degrees / 90)
    note = None
    if abs(degrees - 90 * turns) > 1:
        note = f"the picture is tilted by {degrees:.0f} degrees; only quarter turns are applied"
    return turns % 4 * 90, mirrored, note


def _display_matrix(frame: av.VideoFrame) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Where a step to the right and a step down of the stored picture lead, as (right, down)."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV cannot list side data of a kind that is newer than itself
        return None
    if not isinstance(data, SideData):
        return None
    numbers = struct.unpack("<9i", bytes(data))  # rows of three: right, down, perspective
    return (numbers[0], numbers[1]), (numbers[3], numbers[4])


def _jpeg_orientation(path: Path) -> int | None:
    """The EXIF orientation of a JPEG file, 1 to 8; None if there is none."""
    if not path.is_file():
        return None  # standard input
    with path.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return None
        while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] != 0xDA:
            body = file.read(max(0, int.from_bytes(head[2:], "big") - 2))
            if head[1] == 0xE1 and body.startswith(b"Exif\0\0"):
                return _tiff_orientation(body[6:])
    return None


def _tiff_orientation(data: bytes) -> int | None:
    """Search the first directory of a TIFF structure for the orientation tag."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return None
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start + 2 > len(data):
        return None
    (count,) = struct.unpack_from(order + "H", data, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", data, at)
        if tag == _ORIENTATION_TAG:
            return value if value in _EXIF else None
    return None
