"""Who does what, with workers that die when they are told to."""

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_trt.errors import ModelError, VrTrtError
from vr_trt.runtime.schedule import TRIES, Schedule
from vr_trt.runtime.workers import Died, Failed, Finished, Message, Ready


@dataclass(frozen=True)
class Job:
    order: int

    def __str__(self) -> str:
        return f"job {self.order}"


@dataclass
class Pool:
    """Workers that answer in any order; `deaths` are drawn, at most so many on one job."""

    size: int
    seed: int = 0
    deadly: float = 0.0
    said: list[tuple[int, Message]] = field(default_factory=list)
    given: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.died: Counter[int] = Counter()

    def start(self, worker: int) -> None:
        self.said.append((worker, Ready("about")))

    def give(self, worker: int, task: Job) -> None:
        self.given.append(task.order)
        dies = self.random.random() < self.deadly and self.died[task.order] < TRIES - 1
        self.died[task.order] += dies
        self.said.append((worker, Died("signal 9") if dies else Finished(task.order)))

    def messages(self, seconds: float) -> list[tuple[int, Message]]:
        self.random.shuffle(self.said)
        return [self.said.pop() for _ in self.said[:2]]

    def close(self) -> None:
        pass


def results(schedule: Schedule) -> list[int]:
    found = []
    while not schedule.idle:
        found += [m.result for _, m in schedule.step(0) if isinstance(m, Finished)]
    return found


@given(st.integers(1, 5), st.integers(0, 30), st.integers(0, 10**6), st.floats(0, 0.6))
def test_every_task_is_done_once(size: int, count: int, seed: int, deadly: float) -> None:
    pool = Pool(size, seed, deadly)
    schedule = Schedule(pool)
    for order in range(count):
        schedule.add(Job(order))
    try:
        done = results(schedule)
    except VrTrtError as error:
        assert "no worker is left" in str(error)  # each died three times in a row
        return
    assert sorted(done) == list(range(count))
    assert len([line for line in schedule.warnings if "done again" in line]) == sum(
        pool.died.values()
    )


def test_tasks_begin_in_order() -> None:
    pool = Pool(2)
    schedule = Schedule(pool)
    for order in (3, 1, 2, 0):
        schedule.add(Job(order))
    results(schedule)
    assert pool.given == [0, 1, 2, 3]


def test_a_task_that_kills_is_given_up_in_one_line() -> None:
    class Deadly(Pool):
        def give(self, worker: int, task: Job) -> None:
            self.given.append(task.order)
            self.said.append((worker, Died("killed")))

    pool = Deadly(4)
    schedule = Schedule(pool)
    schedule.add(Job(7))
    with pytest.raises(VrTrtError, match=f"job 7: {TRIES} workers ended on it .killed.") as raised:
        results(schedule)
    assert pool.given == [7] * TRIES and "\n" not in str(raised.value)


def test_the_first_error_wins() -> None:
    class Failing(Pool):
        def give(self, worker: int, task: Job) -> None:
            self.said.append((worker, Failed(ModelError("the plan is damaged"))))

    schedule = Schedule(Failing(2))
    schedule.add(Job(0))
    with pytest.raises(ModelError, match="the plan is damaged"):
        results(schedule)


def test_a_worker_that_cannot_start_is_given_up_and_the_others_go_on() -> None:
    class Lame(Pool):
        def start(self, worker: int) -> None:
            self.said.append((worker, Died("exit code 1") if worker == 1 else Ready("about")))

    schedule = Schedule(Lame(2))
    for order in range(9):
        schedule.add(Job(order))
    assert sorted(results(schedule)) == list(range(9))
    assert any("worker 1 ended 3 times in a row" in line for line in schedule.warnings)

    class Dead(Pool):
        def start(self, worker: int) -> None:
            self.said.append((worker, Died("exit code 1")))

    schedule = Schedule(Dead(2))
    schedule.add(Job(0))
    with pytest.raises(VrTrtError, match="no worker is left: all of them ended .exit code 1."):
        results(schedule)
