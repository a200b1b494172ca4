"""Block sizes for this GPU: tries them on true sizes and writes rows for `kernels/tuned/*.toml`.

    python -m vr_trt.bench.tune [--out FOLDER] [--seconds 400] [--small] [CASE ...]

Begins with the sizes that the table has now and changes one at a time, keeping what is faster and
still right, until no change helps or the case's share of the time is up; again from other beginnings
where a case has some. A size that does not compile, does not fit or gives wrong results is passed
over. CASE is the beginning of a case's name; without any, the first case of every kernel that takes
sizes. Writes `tuned_rows.toml`, after every case, which `vr_trt.bench.adopt` puts into the tables,
and JSON, also its last line.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vr_trt.bench.case import MODULES
from vr_trt.bench.gpu import describe_gpu, why_no_gpu
from vr_trt.bench.kernel_run import Row, Session, worker_command
from vr_trt.bench.machine import describe
from vr_trt.errors import ModelError, VrTrtError

SECONDS = 400.0
TRY_SECONDS = 40.0
COMPILE_SECONDS = 90.0  # for all sizes of a round together
_WORTH = 0.98  # of the time before: less is noise

Options = dict[str, int]
Measure = Callable[[Options], float | None]  # milliseconds; None: unusable
Prepare = Callable[[Sequence[Options]], object]  # for what may be measured next

# What may be tried; a table's row may hold other values, too.
SPACES: dict[str, Mapping[str, Sequence[int]]] = {
    "conv3d": {
        "BLOCK_M": (64, 128, 256),
        "BLOCK_N": (64, 128, 256),
        "BLOCK_K": (32, 64, 128),
        "num_warps": (4, 8),
        "num_stages": (2, 3, 4, 5),
        "PARTS": (1, 2, 4),
    },
    "conv_few": {  # UP_TO 1: not at all, but by conv3d
        "UP_TO": (1, 4),
        "BLOCK": (128, 256),
        "BLOCK_K": (32, 64, 128),
        "num_warps": (4, 8),
        "num_stages": (2, 3, 4, 5),
    },
    "window_attention": {
        "BLOCK_Q": (64, 128),
        "BLOCK_K": (32, 64, 128),
        "UNROLL": (1, 2),
        "num_warps": (4, 8),
        "num_stages": (1, 2, 3, 4),
    },
    "fp8_linear": {
        "BLOCK_M": (64, 128, 256),
        "BLOCK_N": (128, 256),
        "BLOCK_K": (64, 128),
        "GROUP": (4, 8, 16),
        "SUM_K": (128, 65536),
        "num_warps": (4, 8),
        "num_stages": (3, 4, 5),
    },
    "frame_attention": {
        "BLOCK_M": (64, 128),
        "BLOCK_N": (32, 64, 128),
        "BLOCK_D": (32, 64, 128),
        "BLOCK_V": (128, 256, 512),
        "num_warps": (4, 8),
        "num_stages": (1, 2, 3, 4),
    },
    "to_model": {"ROWS": (4, 8, 16), "COL_SPAN": (32, 64, 128), "num_warps": (1, 2, 4)},
    "to_video": {"ROWS": (4, 8, 16), "COL_SPAN": (32, 64, 128), "num_warps": (1, 2, 4)},
    "wavelet": {"ROWS": (4, 8, 16, 32), "COLUMNS": (64, 128, 256), "num_warps": (1, 2, 4)},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The fastest sizes that were tried, and the times of all."""

    options: Options
    ms: float
    before: float | None  # of the sizes that were there
    tried: int


def descend(
    start: Options, space: Mapping[str, Sequence[int]], measure: Measure,
    prepare: Prepare = lambda candidates: None,
) -> Found | None:  # fmt: skip
    """Change one option at a time while that helps; None where nothing that was tried is usable."""
    seen: dict[tuple[tuple[str, int], ...], float | None] = {}

    def ms(options: Options) -> float | None:
        key = tuple(sorted(options.items()))
        if key not in seen:
            seen[key] = measure(options)
        return seen[key]

    best, before = dict(start), ms(start)
    fastest, moved = before, True
    while moved:
        moved = False
        prepare([{**best, name: value} for name, values in space.items() for value in values])
        for name, values in space.items():
            for value in values:
                candidate = {**best, name: value}
                took = ms(candidate)
                if took is not None and (fastest is None or took < _WORTH * fastest):
                    best, fastest, moved = candidate, took, True
    if fastest is None:
        return None
    return Found(options=best, ms=fastest, before=before, tried=len(seen))


def best_of(
    starts: Sequence[Options], space: Mapping[str, Sequence[int]], measure: Measure,
    prepare: Prepare = lambda candidates: None,
) -> Found | None:  # fmt: skip
    """The fastest of several searches; `before` is what the first began with."""
    searches = [descend(start, space, measure, prepare) for start in starts]
    usable = [found for found in searches if found is not None]
    if not usable:
        return None
    best = min(usable, key=lambda found: found.ms)
    before = None if searches[0] is None else searches[0].before
    return replace(best, before=before, tried=sum(found.tried for found in usable))


def row_text(card: Row, chip: int, found: Found, about: str) -> str:
    """The row as the table wants it, under a line that says what it is worth."""
    was = "was unusable" if found.before is None else f"was {found.before:.4f}"
    fields = {"chip": chip, **card["tunable"]["key"], **found.options}
    lines = [
        f"# {card['tunable']['table']}.toml, by {card['name']}: {found.ms:.4f} ms, {was}; {about}",
        "[[row]]",
        *(f"{name} = {json.dumps(value)}" for name, value in fields.items()),
    ]
    return "\n".join(lines) + "\n"


def chosen(cards: Sequence[Row], names: Sequence[str]) -> Iterator[Row]:
    """The cards to tune: those whose names begin so, or the first of every table."""
    able = [card for card in cards if card["tunable"] and card["timed"]]
    tables: set[str] = set()
    for card in sorted(able, key=lambda card: card["importance"]):
        table = card["tunable"]["table"]
        if card["name"].startswith(tuple(names)) if names else table not in tables:
            tables.add(table)
            yield card


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """What to tune, for how long, and where to keep it."""

    out: Path
    seconds: float = SECONDS
    small: bool = False
    names: Sequence[str] = ()


def run(tuning: Tuning) -> Row:
    """Tune, and return the document of results; ModelError where no GPU is."""
    why = why_no_gpu(tuning.small)
    if why is not None:
        raise ModelError(why)
    device = "cpu" if tuning.small else "cuda"
    tuning.out.mkdir(parents=True, exist_ok=True)
    session = Session(
        command=worker_command(device, tuning.small),
        log=tuning.out / "tune.log",
        deadline=time.monotonic() + tuning.seconds,
    )
    document: Row = {"machine": describe(), "gpu": describe_gpu(device), "rows": []}
    try:
        tables = [name for name in MODULES if name in SPACES]
        cards = [*chosen(session.cards(tables), tuning.names)]
        for number, card in enumerate(cards):
            until = time.monotonic() + session.left / (len(cards) - number)
            _tune(session, card, document, (tuning.out, until))
    finally:
        session.end()
    return document


def _tune(session: Session, card: Row, document: Row, given: tuple[Path, float]) -> None:
    """`given`: the folder, and when this case's share of the time is up."""
    tunable, (out, until), tried, together = card["tunable"], given, 0, True

    def measure(options: Options) -> float | None:
        nonlocal tried
        if time.monotonic() >= until:
            return None
        tried += 1
        task = {"case": card["name"], "way": "ours", "do": "try", "options": options}
        row = session.do(task, TRY_SECONDS)
        said = f"{row['ms']:.4f} ms" if "ms" in row else row["why"]
        print(f"{card['name']} {options}: {row['state']}, {said}", file=sys.stderr, flush=True)
        return row["ms"] if row["state"] == "ok" else None

    def prepare(candidates: Sequence[Options]) -> None:
        nonlocal together
        if together and time.monotonic() < until:
            task = {"case": card["name"], "do": "compile", "options": [*candidates]}
            together = session.do(task, COMPILE_SECONDS)["state"] == "ok"  # else one by one

    starts = [tunable["options"], *tunable["starts"]]
    found = best_of(starts, SPACES[tunable["table"]], measure, prepare)
    if found is None:
        return
    about = f"{document['gpu']['name']}, commit {document['machine']['commit']}"
    with (out / "tuned_rows.toml").open("a") as file:
        file.write(row_text(card, tunable["chip"], found, about) + "\n")
    document["rows"].append(
        {"case": card["name"], **tunable, "options": found.options, "ms": found.ms}
        | {"before_ms": found.before, "tried": tried}
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="CASE", help="beginning of a case's name")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="where to keep it")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all of it")
    parser.add_argument("--small", action="store_true", help="try the harness on the CPU")
    given = parser.parse_args()
    try:
        document = run(
            Tuning(out=given.out, seconds=given.seconds, small=given.small, names=given.names)
        )
    except VrTrtError as error:
        print(f"vr-trt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
