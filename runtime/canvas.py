"""The canvas of a run: the size that a source is restored at, and the padded size networks see."""

from dataclasses import dataclass

from vr_trt.errors import UsageError

CELL = 16  # pixels: 8 of the VAE, times the generator's patch of 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Canvas:
    """Sizes in pixels; the picture lies in the top left of the padded canvas."""

    out_w: int
    out_h: int
    padded_w: int
    padded_h: int


def canvas(width: int, height: int, short_side: int) -> Canvas:
    """Return the canvas for a picture whose short side becomes `short_side`, aspect ratio kept.

    Nothing is cropped. Sides are rounded to even numbers so that 4:2:0 can store them (a side of 1
    stays 1), and padded up to multiples of 16. Raises UsageError for a size below 1.
    """
    if min(width, height) < 1:
        raise UsageError(f"a picture of {width}x{height} pixels has nothing to restore")
    if short_side < 1:
        raise UsageError(f"a short side of {short_side} pixels is too small: give 1 or more")
    shorter = min(width, height)
    out_w = _even(width * short_side, shorter)
    out_h = _even(height * short_side, shorter)
    return Canvas(out_w=out_w, out_h=out_h, padded_w=_padded(out_w), padded_h=_padded(out_h))


def _even(numerator: int, denominator: int) -> int:
    """The even number nearest to the fraction (halves up); 1 for a fraction of 1 and below."""
    if numerator <= denominator:
        return 1
    return max(2, 2 * ((numerator + denominator) // (2 * denominator)))


def _padded(side: int) -> int:
    return -(-side // CELL) * CELL
