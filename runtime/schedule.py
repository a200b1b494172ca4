"""Which worker does what: tasks in order, and again if a worker died on them."""

import heapq
from collections import Counter
from collections.abc import Callable

from vr_trt.errors import VrTrtError
from vr_trt.runtime.workers import Died, Failed, Finished, Message, Pool, Ready, Task

TRIES = 3  # deaths on one task, or failed starts of one worker, before it is given up


class Schedule:
    """Gives tasks to the workers of a pool."""

    def __init__(
        self, pool: Pool, give_up: Callable[[Task, VrTrtError], None] | None = None
    ) -> None:
        """Starts the workers.

        `give_up` is told of tasks that cannot be done; without it their errors are raised.
        """
        self._give_up = give_up or _raise
        self.warnings: list[str] = []
        self._pool = pool
        self._queue: list[tuple[int, Task]] = []
        self._running: dict[int, Task] = {}  # by worker
        self._waiting: set[int] = set()  # workers
        self._starting = set(range(pool.size))
        self._died: Counter[int] = Counter()  # starts of a worker in a row that came to nothing
        self._tries: Counter[int] = Counter()  # of tasks, by order
        for worker in range(pool.size):
            pool.start(worker)

    @property
    def idle(self) -> bool:
        """True if every task is done."""
        return not self._queue and not self._running

    def add(self, task: Task) -> None:
        """Queue a task."""
        heapq.heappush(self._queue, (task.order, task))

    def step(self, seconds: float) -> list[tuple[Task | None, Message]]:
        """Give out tasks; return what workers said, each with the task that it is about.

        A task cannot be done if it raises an error in a worker, or if TRIES workers died on it.
        """
        self._give()
        said: list[tuple[Task | None, Message]] = []
        for worker, message in self._pool.messages(seconds):
            task = self._running.get(worker)
            match message:
                case Ready():
                    self._starting.discard(worker)
                    self._waiting.add(worker)
                case Finished():
                    del self._running[worker]
                    self._waiting.add(worker)
                    self._died[worker] = 0
                case Failed(error):
                    if task is None:
                        raise error  # nothing can be done at all
                    del self._running[worker]
                    self._waiting.add(worker)
                    self._give_up(task, error)
                case Died(reason):
                    self._bury(worker, reason)
            said.append((task, message))
        self._give()
        return said

    def _give(self) -> None:
        while self._queue and self._waiting:
            worker = min(self._waiting)
            self._waiting.remove(worker)
            _, self._running[worker] = heapq.heappop(self._queue)
            self._pool.give(worker, self._running[worker])

    def _bury(self, worker: int, reason: str) -> None:
        self._waiting.discard(worker)
        self._starting.discard(worker)
        self._died[worker] += 1
        task = self._running.pop(worker, None)
        if task is not None:
            self._tries[task.order] += 1
            if self._tries[task.order] < TRIES:
                self.warnings.append(f"a worker ended ({reason}) on {task}: done again")
                self.add(task)
            else:
                error = VrTrtError(
                    f"{task}: {TRIES} workers ended on it ({reason}); if memory was short, use fewer "
                    "workers or a smaller profile"
                )
                self._give_up(task, error)
        if self._died[worker] < TRIES:
            self._starting.add(worker)
            self._pool.start(worker)
            return
        self.warnings.append(f"worker {worker} ended {TRIES} times in a row ({reason}): given up")
        if not (self._starting or self._waiting or self._running):
            raise VrTrtError(f"no worker is left: all of them ended ({reason})")


def _raise(task: Task, error: VrTrtError) -> None:
    raise error
