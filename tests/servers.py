"""Servers for tests of pools: they square numbers, and die when told to."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vr_trt.errors import ModelError
from vr_trt.runtime.schedule import Schedule
from vr_trt.runtime.workers import Finished, Pool, Ready, Said


@dataclass(frozen=True)
class Square:
    """`kill`: the first worker that is given that number dies of it, if `once` is no file yet."""

    order: int
    kill: str = ""


class Squares:
    """A server; as what opens one, it can be pickled."""

    def __call__(self) -> "Squares":
        return self

    def elsewhere(self, folder: Path, fetch: Callable[[Path, Path], None]) -> "Squares":
        return self

    def about(self) -> str:
        return "squares"

    def run(self, task: Square, tell: Callable[[Any], None]) -> int:
        print("chatter")  # of a library, on standard output
        tell(f"half of {task.order}")
        if task.kill and not Path(task.kill).exists():
            Path(task.kill).touch()
            os.kill(os.getpid(), 9)
        if task.order == 13:
            raise ModelError("thirteen")
        if task.order == 99:
            time.sleep(60)
        return task.order**2


class NoServer(Squares):
    def __call__(self) -> Squares:
        raise ModelError("no such network")

    def elsewhere(self, folder: Path, fetch: Callable[[Path, Path], None]) -> Squares:
        return self()


class Bug(Squares):
    def run(self, task: Square, tell: Callable[[Any], None]) -> int:
        raise ZeroDivisionError("one by none")


class Copy(Squares):
    """Gives the size of the copy of a file that is not on its machine."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def elsewhere(self, folder: Path, fetch: Callable[[Path, Path], None]) -> Squares:
        fetch(self.source, folder / "copy")
        self.content = (folder / "copy").read_bytes()
        return self

    def run(self, task: Square, tell: Callable[[Any], None]) -> int:
        return len(self.content)


def results(
    pool: Pool, tasks: Iterable[Square]
) -> tuple[dict[int, int], list[Said | Ready], Schedule]:
    """What a pool makes of the tasks, by number, and what was said on the way; the pool is closed."""
    found: dict[int, int] = {}
    said: list[Said | Ready] = []
    try:
        schedule = Schedule(pool)
        for task in tasks:
            schedule.add(task)
        while not schedule.idle:
            for about, message in schedule.step(5):
                if isinstance(message, Finished) and about:
                    found[about.order] = message.result
                elif isinstance(message, Said | Ready):
                    said.append(message)
    finally:
        pool.close()
    return found, said, schedule
