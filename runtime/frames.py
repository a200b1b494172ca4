"""What reader, stages and writer hand to each other: pixel format, frame, facts about a video."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vr_trt.runtime.hdr import HdrMetadata

Layout = Literal["yuv", "rgb", "gray"]
Matrix = Literal["bt601", "bt709", "bt2020", "rgb"]
# Where a chroma sample lies within the luma samples it covers. The first three are what files
# hold; the others appear when such a picture is turned upright.
Siting = Literal[
    "left",
    "center",
    "topleft",
    "top",
    "right",
    "bottom",
    "topright",
    "bottomleft",
    "bottomright",
]
# Each as a share of the way (right, down) from the first to the last luma sample it covers.
SITE: dict[Siting, tuple[float, float]] = {
    "left": (0.0, 0.5),
    "center": (0.5, 0.5),
    "topleft": (0.0, 0.0),
    "top": (0.5, 0.0),
    "right": (1.0, 0.5),
    "bottom": (0.5, 1.0),
    "topright": (1.0, 0.0),
    "bottomleft": (0.0, 1.0),
    "bottomright": (1.0, 1.0),
}
Plane = NDArray[np.uint8] | NDArray[np.uint16]

UNSPECIFIED = 2  # primaries and transfer: ITU-T H.273's code for "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelFormat:
    """How the code values of three planes become RGB."""

    bits: int  # 8..16 significant bits, in the low bits of the code value
    layout: Layout
    chroma: tuple[int, int]  # (horizontal, vertical) subsampling; (2, 2) is 4:2:0, (2, 1) 4:2:2
    matrix: Matrix  # "rgb" for layout "rgb", and only there
    full_range: bool
    siting: Siting
    primaries: int = UNSPECIFIED  # H.273 codes, carried from the input to the output's tags
    transfer: int = UNSPECIFIED

    def __post_init__(self) -> None:
        if not 8 <= self.bits <= 16:
            raise ValueError(f"a pixel format has 8 to 16 bits, not {self.bits}")
        if any(factor not in (1, 2, 4) for factor in self.chroma):
            raise ValueError(f"chroma factors are 1, 2 or 4, not {self.chroma}")
        if (self.layout == "rgb") != (self.matrix == "rgb"):
            raise ValueError(f"matrix {self.matrix!r} does not go with layout {self.layout!r}")
        if self.layout != "yuv" and self.chroma != (1, 1):
            raise ValueError(f"only yuv can have subsampled chroma, not {self.layout}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the planes: uint8 for 8 bits, else uint16."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    @property
    def subsampled(self) -> bool:
        """True if the chroma planes are smaller than the luma plane."""
        return self.chroma != (1, 1)

    @property
    def neutral(self) -> int:
        """The code value of colourless chroma."""
        return 1 << (self.bits - 1)

    @property
    def chroma_offset(self) -> tuple[float, float]:
        """Where the first chroma sample lies, (horizontal, vertical) luma pixels from the first.

        4:2:0 "left" is (0, 0.5), "center" (0.5, 0.5), "topleft" (0, 0).
        """
        right, down = SITE[self.siting]
        return right * (self.chroma[0] - 1), down * (self.chroma[1] - 1)

    def plane_shapes(self, width: int, height: int) -> tuple[tuple[int, int], ...]:
        """[rows, columns] of the three planes; subsampled sizes round up, nothing is cropped."""
        chroma = (-(-height // self.chroma[1]), -(-width // self.chroma[0]))
        return (height, width), chroma, chroma


# Of most films: what is assumed where none is at hand.
USUAL_PIXEL = PixelFormat(
    bits=8, layout="yuv", chroma=(2, 2), matrix="bt709", full_range=False, siting="left"
)


@dataclass(frozen=True, slots=True)
class Join:
    """Where a segment of the output may begin, in frames of the input."""

    frame: int
    shot: int  # the first frame of the shot that it lies in


class OnCard(Protocol):
    """A picture in a GPU's memory, for as long as somebody holds it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the luma."""

    def planes(self) -> tuple[Plane, Plane, Plane]:
        """Copies on the host; waits for the GPU."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture and when to show it: three owned, contiguous planes, or where they lie on a card.

    Planes are y, u, v or r, g, b: [H, W], [h, w], [h, w]; uint8 (8 bits) or uint16. A grey picture
    has u and v of full size, filled with the neutral code.
    """

    content: tuple[Plane, Plane, Plane] | OnCard
    pts: int  # units of the stream's time_base
    duration: int  # the same units; 0 where unknown
    starts_shot: bool = False  # of the input: nothing before it has to do with it
    join: Join | None = None  # of the output: a new segment begins with it

    @property
    def planes(self) -> tuple[Plane, Plane, Plane]:
        """On the host; from a card they are copied each time."""
        return self.content if isinstance(self.content, tuple) else self.content.planes()

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.content[0].shape if isinstance(self.content, tuple) else self.content.shape

    @property
    def width(self) -> int:
        """Pixels across."""
        return int(self._shape[1])

    @property
    def height(self) -> int:
        """Pixels down."""
        return int(self._shape[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What probing found out about one video or image file."""

    path: Path
    width: int  # upright, as the reader delivers it
    height: int
    pixel: PixelFormat
    time_base: Fraction  # seconds per unit of pts
    frame_rate: Fraction  # a guess, for rate control and estimates; never for timestamps
    frames: int | None
    seconds: float | None
    sample_aspect: Fraction  # upright
    rotation: int  # degrees clockwise that show the stored picture upright; the reader applies it
    is_image: bool
    audio_streams: int
    guesses: tuple[str, ...]  # what had to be assumed or dropped, one line each
    mirrored: bool = False  # left and right exchanged after turning; the reader applies it too
    hdr: HdrMetadata | None = None
    interlaced: bool = False  # as stored
    images: tuple[Path, ...] = ()  # a folder's, one frame each
    solitary: bool = False  # a folder of images or a pipe: there is no file to read again
    pipe: Any = None  # vr_trt.runtime.pipe.Pipe: standard input, which can be opened only once
    nvdec: bool = False  # decoded by the GPU's own decoder
    deinterlace: str = ""  # what the reader does about it; see runtime/deinterlace.py

    @property
    def others(self) -> Path | None:
        """The file from which all other streams are copied; None where there are none."""
        if self.pipe is not None:
            found: Path | None = self.pipe.others
            return found
        return None if self.solitary else self.path
