"""Colour tags: H.273 code points and what they mean here, and guesses where a file has none."""

from vr_trt.runtime.frames import SITE, Matrix, PixelFormat, Siting
from vr_trt.runtime.packing import Packing

RANGE_LIMITED, RANGE_FULL = 1, 2  # FFmpeg's AVColorRange
UNKNOWN_MATRICES = (2, 3)  # unspecified, reserved
_MATRIX_OF_CODE: dict[int, Matrix] = {
    1: "bt709",
    4: "bt601",  # FCC
    5: "bt601",
    6: "bt601",
    7: "bt709",  # SMPTE 240M
    9: "bt2020",
    10: "bt2020",  # constant luminance
}
_INEXACT = {4: "FCC", 7: "SMPTE 240M", 10: "BT.2020 constant luminance"}
_CODE_OF_MATRIX: dict[Matrix, int] = {"rgb": 0, "bt709": 1, "bt601": 6, "bt2020": 9}
HD_WIDTH, SD_HEIGHT = 1280, 576


def matrix_code(pixel: PixelFormat) -> int:
    """The H.273 matrix coefficients code that says how the planes are to be read."""
    return _CODE_OF_MATRIX[pixel.matrix]


def read_matrix(code: int, size: tuple[int, int], image: bool) -> tuple[Matrix | None, str | None]:
    """The matrix of a tagged or untagged YUV picture of (width, height), and what was assumed.

    None for a matrix that is not a matrix on code values here (YCgCo, ICtCp and their like).
    """
    if code in _MATRIX_OF_CODE:
        matrix = _MATRIX_OF_CODE[code]
        note = f"colour matrix {_INEXACT[code]} is read as {matrix}" if code in _INEXACT else None
        return matrix, note
    if code not in UNKNOWN_MATRICES:
        return None, None
    width, height = size
    large = not image and (width >= HD_WIDTH or height > SD_HEIGHT)
    guess: Matrix = "bt709" if large else "bt601"
    return guess, f"colour matrix is untagged: {guess} is assumed"


def read_range(code: int, name: str, packing: Packing, image: bool) -> tuple[bool, str | None]:
    """True for full range, and what was assumed."""
    if name.startswith("yuvj") or code == RANGE_FULL:
        return True, None
    if code == RANGE_LIMITED:
        return False, None
    if packing.layout == "rgb" or (packing.layout == "gray" and image):
        return True, None
    return False, "colour range is untagged: limited is assumed"


def usual_siting(codec: str, transfer: int, image: bool) -> Siting:
    """Where chroma lies by the custom of the codec; the decoder does not tell.

    JPEG and MPEG-1 centre it, PQ and HLG deliveries put it at the top left, all else at the left.
    """
    if image or codec in ("mjpeg", "mpeg1video", "webp", "vp8"):
        return "center"
    return "topleft" if transfer in (16, 18) else "left"


def turn_siting(siting: Siting, rotation: int, mirrored: bool, size: tuple[int, int]) -> Siting:
    """Where chroma lies in a picture that was turned; `size` is (width, height) before turning.

    An axis that is reversed keeps its side where its length is odd: the lone sample at its end
    becomes the first one.
    """
    right, down = SITE[siting]
    width, height = size
    for _ in range(rotation // 90):
        right, down = _reversed(down, height), right
        width, height = height, width
    if mirrored:
        right = _reversed(right, width)
    return next(name for name, site in SITE.items() if site == (right, down))


def _reversed(share: float, length: int) -> float:
    return share if length % 2 else 1 - share
