"""Workers, as those who use them see them: processes that are sent tasks and send messages.

A pool (runtime/local_pool.py, runtime/ray_pool.py) starts workers and carries the messages. Who
does what, and what is done again, is decided in runtime/schedule.py. Only a server knows what a task
is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vr_trt.errors import MemoryBudgetError, ModelError, UsageError, VrTrtError


class Server(Protocol):
    """Does the tasks, inside a worker. Both methods may raise VrTrtError."""

    def about(self) -> Any:
        """What must be known before the first task is given."""

    def run(self, task: Any, tell: Callable[[Any], None]) -> Any:
        """Do a task; `tell` how it goes, from any thread."""


class RemoteServer(Protocol):
    """Opens a server on another machine."""

    def elsewhere(self, folder: Path, fetch: Callable[[Path, Path], None]) -> Server:
        """The server; `folder` is its own there, `fetch` copies a file from here into it."""


class Task(Protocol):
    """A piece of work; as text, what a user would call it."""

    @property
    def order(self) -> int:
        """Lower numbers are done first; no two tasks have the same."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker can take tasks now."""

    about: Any  # the server's


@dataclass(frozen=True, slots=True)
class Said:
    """Said of the task that the worker is doing."""

    message: Any


@dataclass(frozen=True, slots=True)
class Finished:
    """The worker's task is done, and it can take the next."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The task failed, and another try would as well."""

    error: VrTrtError


@dataclass(frozen=True, slots=True)
class Died:
    """The worker is gone, and its task with it."""

    reason: str


Message = Ready | Said | Finished | Failed | Died


class Pool(Protocol):
    """Workers 0 … size − 1."""

    @property
    def size(self) -> int:
        """How many."""

    def start(self, worker: int) -> None:
        """Start it, or a fresh one in its place."""

    def give(self, worker: int, task: Any) -> None:
        """Send a task to a worker that waits for one."""

    def messages(self, seconds: float) -> list[tuple[int, Message]]:
        """What workers said; waits at most so long. A worker that died says nothing more."""

    def close(self) -> None:
        """End all, at once."""


def attempt(call: Callable[[], Any]) -> Any:
    """The result of `call`, or Failed with the error that the command line would show."""
    try:
        return call()
    except VrTrtError as error:
        return Failed(error)
    except ModuleNotFoundError as error:
        return Failed(ModelError(f"{error.name} is not installed where a worker runs: install it"))
    except MemoryError:
        return Failed(
            MemoryBudgetError("a worker is out of memory: use fewer or a smaller profile")
        )
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return Failed(UsageError(f"{name}{error.strerror or error}: check the path and try again"))
