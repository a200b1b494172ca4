"""Runs the measuring process through a list of tasks, within a time, whatever breaks on the way.

The worker does one task at a time. If it dies or takes too long, that task has failed, and a fresh
worker goes on with the next: an illegal memory access on a GPU spoils its whole process.
"""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vr_trt.bench.case import COMPILED, OURS
from vr_trt.bench.roofline import CEILINGS
from vr_trt.errors import VrTrtError

START_SECONDS = 90.0  # for a worker to import and to make its cards
CEILING_SECONDS = 30.0
NOT_RUN = {"state": "not run", "why": "the time was up"}

Task = dict[str, Any]
Row = dict[str, Any]


class WorkerDied(VrTrtError):
    """The worker ended or was ended before it answered; the message is its last word."""


class Worker:
    """One measuring process; its standard error goes to `log`."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as file:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
            )
        self._answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def ask(self, task: Task, seconds: float) -> Row:
        """Its answer to `task`; WorkerDied where there is none in time."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(task) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise WorkerDied(self._last_word()) from None
        return self.answer(seconds)

    def answer(self, seconds: float) -> Row:
        """Its next line; WorkerDied where there is none in time, and the process is gone then."""
        try:
            line = self._answers.get(timeout=max(seconds, 0.01))
        except queue.Empty:
            self.end()
            raise WorkerDied(f"no answer within {seconds:.0f} s") from None
        if line is None:
            self._child.wait()
            raise WorkerDied(self._last_word())
        answer: Row = json.loads(line)
        return answer

    def _last_word(self) -> str:
        code = self._child.wait()
        lines = self._log.read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), f"exit code {code}")[:300]

    def end(self) -> None:
        """Stop the process, if it still runs."""
        self._child.kill()
        self._child.wait()


@dataclass(kw_only=True)
class Session:
    """What was measured so far, and the worker that measures on."""

    command: Callable[[Sequence[str]], list[str]]  # of modules, the worker's command
    log: Path
    deadline: float  # time.monotonic()
    worker: Worker | None = None
    modules: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)  # modules that cannot be imported

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def cards(self, modules: Sequence[str]) -> list[Row]:
        """The cards of all cases; a module that breaks the worker is left out and named."""
        try:
            self.worker, cards = self._start(modules)
            self.modules = list(modules)
            return cards
        except WorkerDied:
            cards = []  # one module breaks it; the others shall be measured
        for module in modules:
            try:
                worker, own = self._start([module])
            except WorkerDied as died:
                self.broken[module] = str(died)
                continue
            worker.end()
            self.modules.append(module)
            cards += own
        return cards

    def _start(self, modules: Sequence[str]) -> tuple[Worker, list[Row]]:
        worker = Worker(self.command(modules), self.log)
        cards: list[Row] = worker.answer(min(START_SECONDS, self.left))["cards"]
        return worker, cards

    def do(self, task: Task, seconds: float) -> Row:
        """The task's result with its `state`: ok, wrong, failed (and why) or not run."""
        if self.left <= 0:
            return dict(NOT_RUN)
        try:
            if self.worker is None:
                self.worker, _ = self._start(self.modules)
            row = self.worker.ask(task, min(seconds, self.left))
        except WorkerDied as died:
            self.worker = None
            return dict(NOT_RUN) if self.left <= 0 else {"state": "failed", "why": str(died)}
        return row | {"state": "ok" if row.get("right", True) else "wrong"}

    def end(self) -> None:
        """Stop the worker."""
        if self.worker is not None:
            self.worker.end()


def schedule(cards: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Task, float]]:
    """Tasks and their seconds: checks, the chip's ceilings, times; the important first.

    Checked are all cases that are not timed, and every kernel's most important one: a timed way is
    checked again anyway. A rival comes with what is less important by one than its case, and what
    PyTorch has to compile, which takes a minute, by three.
    """
    cards = sorted(cards, key=lambda card: card["importance"])
    checked: set[str] = set()
    for card in cards:
        first = card["timed"] and card["kernel"] not in checked
        if OURS in card["ways"] and (first or not card["timed"]):
            checked |= {card["kernel"]} if first else set()
            yield {"case": card["name"], "way": OURS, "do": "check"}, card["seconds"]
    for name in CEILINGS:
        yield {"ceiling": name}, CEILING_SECONDS
    timed = [(card, way) for card in cards if card["timed"] for way in card["ways"]]
    for card, way in sorted(timed, key=lambda pair: pair[0]["importance"] + _delay(pair[1])):
        yield {"case": card["name"], "way": way, "do": "time"}, card["seconds"]


def _delay(way: str) -> int:
    return 0 if way.startswith(OURS) else 3 if way == COMPILED else 1


def worker_command(device: str, small: bool) -> Callable[[Sequence[str]], list[str]]:
    """The worker's command line for some modules."""

    def command(modules: Sequence[str]) -> list[str]:
        options = ["--small"] if small else []
        program = [sys.executable, "-m", "vr_trt.bench.kernel_worker", device]
        return [*program, *options, *modules]

    return command
