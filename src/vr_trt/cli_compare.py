"""`vr-trt compare`: two films side by side, measured."""

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vr_trt.errors import UsageError

if TYPE_CHECKING:
    from vr_trt.bench.comparison import Comparison
    from vr_trt.bench.rgb_film import Picture01

_LABELS = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "delta_e": "ΔE2000",
    "psnr_worst_tenth": "PSNR of the worst tenth",
    "ssim_worst_tenth": "SSIM of the worst tenth",
    "flicker": "warping error, /255",
    "change": "change a frame, /255",
    "largest_jump": "largest jump",
}


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A film or image, such as the input.")],
    b: Annotated[
        Path, typer.Argument(metavar="B", help="The one to compare with it, such as the output.")
    ],
    reference: Annotated[
        Path | None,
        typer.Argument(metavar="REF", help="What both should look like, if that is known."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with a slider and curves.")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Write one frame of each, side by side.")] = None,
    frame: Annotated[int, typer.Option(help="The frame that --png shows.", min=0)] = 0,
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="LEFT,TOP,WIDTH,HEIGHT", help="The part that --png shows.", show_default="all"
        ),
    ] = None,
    page_frames: Annotated[
        int, typer.Option(help="How many frames --html shows at most.", min=2)
    ] = 48,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="A further measure from pyiqa, such as lpips, dists or niqe; may be repeated."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Measure two films against each other, or both against a reference."""
    from vr_trt.bench.compare_page import write_page
    from vr_trt.bench.compare_pictures import PagePictures, Strip
    from vr_trt.bench.comparison import compare as compared
    from vr_trt.bench.learned_measures import learned_measure

    page, strip = PagePictures(page_frames), Strip(frame, _box(crop))
    for target in filter(None, (html, png)):
        if not target.parent.is_dir():  # known now rather than after the last frame
            raise UsageError(f"{target.parent} is not a directory; make it first")

    def on_frame(index: int, pictures: "Sequence[Picture01]") -> None:
        if html is not None:
            page.add(index, pictures)
        if png is not None:
            strip.add(index, pictures)

    more = {name: learned_measure(name) for name in metric or ()}
    comparison = compared(a, b, reference, more=more, on_frame=on_frame)
    if html is not None:
        write_page(html, comparison, page)
    if png is not None:
        strip.save(png)
    if json:
        print(jsonlib.dumps(comparison.as_json()))
    else:
        _show(comparison)


def _box(crop: str | None) -> tuple[int, int, int, int] | None:
    if crop is None:
        return None
    try:
        left, top, width, height = (int(part) for part in crop.split(","))
    except ValueError:
        left = top = width = height = -1
    if min(left, top) < 0 or min(width, height) < 1:
        raise UsageError(f"--crop {crop}: give LEFT,TOP,WIDTH,HEIGHT in pixels, as 100,80,160,120")
    return left, top, width, height


def _show(comparison: "Comparison") -> None:
    from rich.console import Console
    from rich.table import Table

    from vr_trt.runtime.counted import counted

    table = Table(
        title=f"{counted(comparison.frames, 'frame')}, {comparison.width}x{comparison.height}"
    )
    table.add_column("")
    pooled = {of.name: of.pooled() for of in comparison.measures}
    against = "reference" if len(pooled) == 2 else "A"
    for name in pooled:
        table.add_column(f"{name} against {against}", justify="right")
    for row in next(iter(pooled.values())):
        table.add_row(_LABELS.get(row, row), *(f"{of[row]:.3f}" for of in pooled.values()))
    console = Console()
    console.print(table)
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)
