"""`vr-trt cuts`: where the shots of a film begin, as a list that `run --cuts` takes."""

from pathlib import Path
from typing import Annotated

import typer


def cuts(
    input: Annotated[Path, typer.Argument(metavar="INPUT", help="The video to look at.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The list to write.", show_default="standard output"),
    ] = None,
) -> None:
    """Find the hard cuts of a video, as a list that `run --cuts` takes."""
    from vr_trt.runtime.counted import counted
    from vr_trt.runtime.cut_list import find_cuts, write_cut_list
    from vr_trt.runtime.reader import Reader

    with Reader(input) as reader:
        found = []
        for cut in find_cuts(reader):
            found.append(cut)
            if output is None:
                print(f"{cut.frame}\t{cut.seconds:.3f}", flush=True)
    if output is not None:
        write_cut_list(output, found)
        print(f"{output}: {counted(len(found), 'cut')}")
