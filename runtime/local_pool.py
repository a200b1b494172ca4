"""Workers as processes of this machine.

Each hangs on one socket. When this process ends, however it does, the sockets close and the workers
end with it; when a worker ends, its socket closes and that is noticed at once.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import vr_trt.errors
from vr_trt.runtime.workers import Died, Message, Server

_PACKAGE = Path(vr_trt.errors.__file__).parents[1]  # the folder from which vr_trt is imported


@dataclass(frozen=True, slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: "Connection[Any, Any]"


class LocalPool:
    """One process for each of `environments`, what is in it on top of this process's own."""

    def __init__(
        self, open_server: Callable[[], Server], environments: Sequence[Mapping[str, str]]
    ) -> None:
        """`open_server` is pickled and called in each worker."""
        self._open_server = pickle.dumps(open_server)
        self._environments = environments
        self._workers: dict[int, _Worker] = {}

    @property
    def size(self) -> int:
        return len(self._environments)

    @property
    def processes(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers.values()]

    def start(self, worker: int) -> None:
        self._end(worker)
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "vr_trt.runtime.worker_process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # a library's chatter does not belong among the events
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C is for this process, which then ends them
                env=_environment() | dict(self._environments[worker]),
            )
        connection: Connection[Any, Any] = Connection(ours.detach())
        self._workers[worker] = _Worker(process, connection)
        self._send(connection, self._open_server)

    def give(self, worker: int, task: Any) -> None:
        self._send(self._workers[worker].connection, pickle.dumps(task))

    def messages(self, seconds: float) -> list[tuple[int, Message]]:
        numbers = {worker.connection: number for number, worker in self._workers.items()}
        said: list[tuple[int, Message]] = []
        for connection in wait(list(numbers), seconds):
            assert isinstance(connection, Connection)
            try:
                said.append((numbers[connection], connection.recv()))
            except (EOFError, OSError):  # in the middle of a message, too
                said.append((numbers[connection], self._buried(numbers[connection])))
        return said

    def close(self) -> None:
        for number in list(self._workers):
            self._end(number)

    def _send(self, connection: "Connection[Any, Any]", message: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it died: `messages` will say so
            connection.send_bytes(message)

    def _buried(self, number: int) -> Died:
        process = self._workers[number].process
        with suppress(subprocess.TimeoutExpired):  # it may be about to end by itself
            process.wait(2)
        self._end(number)
        return Died(_reason(process.returncode))

    def _end(self, number: int) -> None:
        worker = self._workers.pop(number, None)
        if worker is None:
            return
        worker.connection.close()
        worker.process.kill()  # nothing happens to one that has ended
        worker.process.wait()


def _environment() -> dict[str, str]:
    paths = [str(_PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _reason(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed, as the system does when memory is short"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
