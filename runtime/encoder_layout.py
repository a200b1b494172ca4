"""A frame as NVENC reads it in the card's memory.

NVENC is told one address and one distance between rows: chroma must begin where the luma's rows
end (libavcodec/nvenc.c, `nvenc_register_frame`).
"""

from dataclasses import dataclass

import numpy as np

from vr_trt.runtime.dlpack import Lent
from vr_trt.runtime.region import Grid

PITCH = 256  # bytes: rows begin at such distances; NVENC asks for 16


@dataclass(frozen=True, slots=True)
class EncoderLayout:
    """NV12 or P010 in one piece of memory: luma, and at once the interleaved chroma."""

    rows: int
    columns: int
    kind: str  # uint8 or uint16
    bits: int  # significant ones

    @property
    def item(self) -> int:
        return int(np.dtype(self.kind).itemsize)

    @property
    def pitch(self) -> int:
        """Bytes from row to row."""
        return -(-self.columns * self.item // PITCH) * PITCH

    @property
    def bytes(self) -> int:
        return self.pitch * self.rows * 3 // 2

    @property
    def shift(self) -> int:
        """Bits below a code value."""
        return 0 if self.kind == "uint8" else 16 - self.bits

    @property
    def format_name(self) -> str:
        return "nv12" if self.kind == "uint8" else "p010le"

    @property
    def sums(self) -> int:
        """Rows of y, u and v."""
        return 2 * self.rows

    def grids(self, address: int) -> dict[str, Grid]:
        """Where y, u and v lie in a slot."""
        step, chroma = self.pitch // self.item, address + self.pitch * self.rows
        rows, columns = self.rows // 2, self.columns // 2
        return {
            "y": Grid(address, self.kind, self.rows, self.columns, step),
            "u": Grid(chroma, self.kind, rows, columns, step, 2),
            "v": Grid(chroma + self.item, self.kind, rows, columns, step, 2),
        }

    def lent(self, address: int, owner: object) -> tuple[Lent, Lent]:
        """Luma and chroma for `VideoFrame.from_dlpack`."""
        step, chroma = self.pitch // self.item, address + self.pitch * self.rows
        bits, luma = 8 * self.item, (self.rows, self.columns)
        pairs = (self.rows // 2, self.columns // 2, 2)
        return (
            Lent(address, luma, (step, 1), bits, owner),
            Lent(chroma, pairs, (step, 2, 1), bits, owner),
        )
