"""Mutated files through the reader and the command line: `python -m tests.fuzz.campaign`.

Every input is made from a small file and (seed, number). Encoders do not always give that file the
same bytes, so what does wrong is kept (`--keep`). A worker reads the inputs; one that crashes or takes
too long is replaced. Prints what was found, and one JSON document as the last line.
"""

import argparse
import json
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.fake_model import make_fake_model, write_manifest
from tests.fuzz.mutations import MEDIA, TEXT, mutate
from tests.fuzz.seeds import TEXTS, media

from vr_trt.bench.machine import describe
from vr_trt.runtime.memory import Law

SECONDS = {"whole": 60.0}  # for one input; others:
USUAL_SECONDS = 10.0
MEDIA_WAYS = ("media", "piped", "whole")
BAD = ("wrong", "crash", "hang", "out of memory")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One input: what it is made from and what is done with it."""

    number: int
    way: str  # media, piped, whole, or a function of seeds.TEXTS
    path: Path  # the file it is made from; a text lies where it is read
    content: bytes


@dataclass(kw_only=True, slots=True)
class Found:
    """What came of a campaign."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)  # by way
    findings: list[dict[str, str | int]] = field(default_factory=list)


class Worker:
    """The process that reads; a new one after each that died."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    def ask(self, way: str, path: Path) -> dict[str, str]:
        """The outcome of one file."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True,
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"way": way, "path": str(path)}) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], SECONDS.get(way, USUAL_SECONDS))
        line = process.stdout.readline() if ready else ""
        if line:
            answer: dict[str, str] = json.loads(line)
            return answer
        self.close()
        if not ready:
            return {"outcome": "hang", "said": ""}
        return {"outcome": "crash", "said": f"exit status {process.returncode}"}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def jobs(folder: Path, seed: int, counts: dict[str, int]) -> Iterator[Job]:
    """Inputs of each way, made from the files that are written into `folder`."""
    files = [(path, path.read_bytes()) for path in media(folder)]
    for way in MEDIA_WAYS:
        for number in range(counts.get(way, 0)):
            source = random.Random(f"{seed} {way} {number}")
            path, content = files[number % len(files)]
            yield Job(number=number, way=way, path=path, content=mutate(content, source, MEDIA))
    for make in TEXTS:
        path = make(folder)
        content = path.read_bytes()
        for number in range(counts.get("text", 0)):
            source = random.Random(f"{seed} {make.__name__} {number}")
            yield Job(
                number=number, way=make.__name__, path=path, content=mutate(content, source, TEXT)
            )


def campaign(folder: Path, seed: int, counts: dict[str, int], keep: Path | None = None) -> Found:
    """Run all of them; bad inputs are written into the folder `keep`."""
    model = make_fake_model(folder / "fake")
    law = Law(**{item.name: 100 if item.name != "attention" else 0 for item in fields(Law)})
    write_manifest(model, memory=asdict(law))  # so that sizes beyond reason are refused
    command = [sys.executable, "-m", "tests.fuzz.worker", str(model)]
    originals, worker, found = folder / "seeds", Worker(command), Found()
    originals.mkdir()
    try:
        for job in jobs(originals, seed, counts):
            answer = _tried(job, folder, worker)
            found.outcomes.setdefault(job.way, Counter())[answer["outcome"]] += 1
            if answer["outcome"] in BAD:
                name = f"{job.way}-{seed}-{job.number}-{job.path.name}"
                found.findings.append({"input": name, **answer})
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / name).write_bytes(job.content)
    finally:
        worker.close()
    return found


def _tried(job: Job, folder: Path, worker: Worker) -> dict[str, str]:
    if job.way in MEDIA_WAYS:
        path = folder / f"input{job.path.suffix}"
        path.write_bytes(job.content)
        answer = worker.ask(job.way, path)
        path.unlink()
        return answer
    beside = {path: path.read_bytes() for path in job.path.parent.iterdir() if path.is_file()}
    job.path.write_bytes(job.content)
    answer = worker.ask(job.way, job.path)
    for path, content in beside.items():  # a journal is tidied up when it is read
        path.write_bytes(content)
    return answer


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--media", type=int, default=5000, help="through the reader")
    parser.add_argument("--piped", type=int, default=1000, help="through standard input")
    parser.add_argument("--whole", type=int, default=300, help="through the whole command line")
    parser.add_argument("--text", type=int, default=1000, help="of each kind of text")
    parser.add_argument("--keep", type=Path, help="folder for bad inputs")
    parser.add_argument("--out", type=Path, help="where to keep the JSON")
    given = parser.parse_args(arguments)
    counts = {"media": given.media, "piped": given.piped, "whole": given.whole, "text": given.text}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(Path(folder), given.seed, counts, given.keep)
    document: dict[str, Any] = {
        "machine": describe(),
        "command": f"python -m tests.fuzz.campaign --seed {given.seed} --media {given.media} "
        f"--piped {given.piped} --whole {given.whole} --text {given.text}",
        "seconds": round(time.perf_counter() - start),
        "inputs": sum(counter.total() for counter in found.outcomes.values()),
        "outcomes": {way: dict(counter) for way, counter in found.outcomes.items()},
        "findings": found.findings,
    }
    for finding in found.findings:
        last = str(finding["said"]).strip().splitlines()[-1:]
        print(f"{finding['input']}: {finding['outcome']} {' '.join(last)}", file=sys.stderr)
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))
    return 1 if found.findings else 0


if __name__ == "__main__":
    sys.exit(main())
