"""Workers as actors of a Ray cluster: one that is started here, or one that is there already.

A worker reads the input by its path where the same file is there, and gets a copy of it through
Ray's object store, part by part, where it is not. Segments come back the same way.
"""

import logging
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from vr_trt.errors import ModelError, UsageError
from vr_trt.runtime.counted import counted
from vr_trt.runtime.workers import (
    Died,
    Failed,
    Finished,
    Message,
    Ready,
    RemoteServer,
    Said,
    Server,
    attempt,
)

LOCAL = "local"
_OBJECT_STORE = 1 << 30  # bytes: little is under way, and Ray would take a third of the machine
_ANSWER_SECONDS = 10
_LEAVE_SECONDS = 5
_PART = 64 << 20  # bytes of an input that are fetched at a time


class RayCluster:
    """A connection to a cluster; `close` ends the one that was started for it."""

    def __init__(self, address: str, workers: int, threads: int) -> None:
        """`local` starts a cluster with `workers` times `threads` cores.

        UsageError where none of its machines has so many `threads`, ModelError without Ray.
        """
        try:
            import ray
        except ModuleNotFoundError:
            raise ModelError("ray is not installed: pip install 'vr-trt[cluster]'") from None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
        self._ray = ray
        if address.startswith("ray://"):
            raise UsageError(
                f"{address}: Ray's client cannot be used; start on a machine of the cluster"
            )
        if address not in (LOCAL, "auto"):
            _check_answers(address)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address == LOCAL:
                cores = max(1, workers) * max(1, threads)
                ray.init(
                    address="local",
                    num_cpus=cores,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE,
                    **quiet,
                )
            else:
                ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"no Ray cluster at {address}: {reason[:200]}") from None
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.cores = [cores for node in alive if (cores := int(node.get("CPU", 0)))]  # by machine
        self.gpus = sum(int(node.get("GPU", 0)) for node in alive)
        if not self.cores or max(self.cores) < threads:
            self.close()
            wanted = counted(threads or 1, "core")
            raise UsageError(f"--cluster {address}: none of its machines has {wanted}")

    def close(self) -> None:
        """Leave it; everything of this run in it ends."""
        self._ray.shutdown()


def _check_answers(address: str) -> None:
    """UsageError where nobody listens: Ray itself tries for many minutes."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and re.fullmatch(r"\d{1,5}", port) and int(port) < 1 << 16):
        raise UsageError(f"--cluster {address!r}: write local, auto, or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise UsageError(f"no Ray cluster at {address}: {error.strerror or error}") from None


class RayPool:
    """Actors of the connected cluster, each with so many cores and GPUs of its own."""

    def __init__(self, open_server: RemoteServer, size: int, *, cores: int, gpus: int) -> None:
        import ray

        self._ray = ray
        self._size = size
        self._needs = {"num_cpus": cores, "num_gpus": gpus, "max_concurrency": 2}
        self._open_server = open_server
        self._files = ray.remote(_Files).options(**_here(ray), num_cpus=0).remote()
        self._actors: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}  # what a worker will say, by worker
        self._placed: set[int] = set()  # workers that have said something: Ray found a place

    @property
    def size(self) -> int:
        return self._size

    def start(self, worker: int) -> None:
        self._end(worker)
        actor = self._ray.remote(_Actor).options(**self._needs)
        self._actors[worker] = actor.remote(self._open_server, _Fetch(self._files))
        self._listen(worker, self._actors[worker].open)

    def give(self, worker: int, task: Any) -> None:
        self._listen(worker, self._actors[worker].run, task)

    def messages(self, seconds: float) -> list[tuple[int, Message]]:
        workers = {stream: worker for worker, stream in self._streams.items()}
        if not workers:
            threading.Event().wait(seconds)
            return []
        self._ray.wait(list(workers), num_returns=1, timeout=seconds, fetch_local=False)
        ready, _ = self._ray.wait(
            list(workers), num_returns=len(workers), timeout=0, fetch_local=False
        )
        return [
            (workers[stream], said)
            for stream in ready
            for said in self._next(workers[stream], stream)
        ]

    def close(self) -> None:
        for worker in list(self._actors):
            self._end(worker)
        self._ray.kill(self._files)

    def _listen(self, worker: int, method: Any, *arguments: Any) -> None:
        self._streams[worker] = method.options(num_returns="streaming").remote(*arguments)

    def _next(self, worker: int, stream: Any) -> list[Message]:
        errors = self._ray.exceptions
        try:
            said: Message = self._ray.get(next(stream))
        except StopIteration:
            return []  # after its last word
        except errors.RayTaskError as error:
            del self._streams[worker]
            return [Died(f"{type(error.cause).__name__}: {error.cause}")]
        except errors.RayError as error:  # the actor, its machine, or an object of it is gone
            del self._streams[worker]
            return [Died(f"{type(error).__name__} of Ray")]
        self._placed.add(worker)
        if isinstance(said, Ready | Finished | Failed):
            del self._streams[worker]
        return [said]

    def _end(self, worker: int) -> None:
        self._streams.pop(worker, None)
        actor = self._actors.pop(worker, None)
        if actor is None:
            return
        if worker in self._placed:
            self._placed.remove(worker)
            with suppress(self._ray.exceptions.RayError):
                self._ray.get(actor.leave.remote(), timeout=_LEAVE_SECONDS)
        self._ray.kill(actor)


class _Actor:
    """A server in a process of the cluster; its methods stream what it says."""

    def __init__(self, open_server: RemoteServer, fetch: Callable[[Path, Path], None]) -> None:
        self._open_server = open_server
        self._fetch = fetch
        self._folder = tempfile.TemporaryDirectory(prefix="vr-trt-")
        self._server: Server | None = None

    def open(self) -> Iterator[Message]:
        def opened() -> Any:
            self._server = self._open_server.elsewhere(Path(self._folder.name), self._fetch)
            return self._server.about()

        about = attempt(opened)
        yield about if isinstance(about, Failed) else Ready(about)

    def run(self, task: Any) -> Iterator[Message]:
        assert self._server is not None, "it was opened"
        server, said = self._server, SimpleQueue[Message]()

        def work() -> None:
            result: Message = Died("a mistake of ours in a worker")
            try:
                done = attempt(lambda: server.run(task, lambda message: said.put(Said(message))))
                result = done if isinstance(done, Failed) else Finished(done)
            finally:
                said.put(result)

        threading.Thread(target=work, daemon=True).start()
        message = said.get()
        while isinstance(message, Said):
            yield message
            message = said.get()
        yield message

    def leave(self) -> None:
        """Nothing stays on this machine's disk."""
        self._folder.cleanup()


class _Files:
    """Reads files of the machine where the run was started."""

    def part(self, path: Path, start: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(_PART)


class _Fetch:
    """Copies a file from the machine where the run was started."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def __call__(self, source: Path, target: Path) -> None:
        import ray

        with target.open("wb") as file:
            while part := ray.get(self._files.part.remote(source, file.tell())):
                file.write(part)


def _here(ray: Any) -> dict[str, Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False)}
