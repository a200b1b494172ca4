"""Many files, one after another on each of several workers, with a report of all.

A file that fails does not stop the others. The report is also the batch's memory: a file that it
calls done is skipped the next time, unless input, settings or output have changed.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from vr_trt.errors import InterruptedRun, UsageError, VrTrtError
from vr_trt.runtime.counted import counted
from vr_trt.runtime.item_server import full_model_name
from vr_trt.runtime.journal import stopped_facts
from vr_trt.runtime.manifest import Asked, Job
from vr_trt.runtime.pipeline import REPORT_SECONDS, Progress
from vr_trt.runtime.restorer import Restorer
from vr_trt.runtime.run_options import RunOptions
from vr_trt.runtime.schedule import Schedule
from vr_trt.runtime.worker_group import WorkerGroup, check_workers_memory, find_cards
from vr_trt.runtime.workers import Finished, Said, Server, Task

# Of what is asked, what a Restorer is made of; the rest goes with each file.
_OF_RESTORER = ("model", "profile", "backend", "precision", "card_memory", "seed", "color")

Status = Literal["done", "failed", "skipped", "waiting"]


@dataclass(kw_only=True, slots=True)
class Entry:
    """A row of the report: what became of one file."""

    input: str
    output: str
    status: Status = "waiting"
    reason: str = ""  # of a failure or of skipping
    exit_code: int = 0
    frames: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    settings: str = ""  # a hash of what decides the result
    bytes: int = 0  # of the output
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileTask:
    """A job for a worker."""

    job: Job
    overwrite: bool

    @property
    def order(self) -> int:
        """The manifest's."""
        return self.job.number

    def __str__(self) -> str:
        return str(self.job.input)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDone:
    """What came of a job."""

    frames: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str = ""
    exit_code: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class FileServer:
    """Restores whole files; the networks stay open from one to the next."""

    threads: int
    _open: dict[tuple[Any, ...], Restorer] = field(default_factory=dict, compare=False)

    def __call__(self) -> "FileServer":
        return self

    def elsewhere(self, folder: Path, fetch: Callable[[Path, Path], None]) -> Server:
        """On another machine, by the same paths: inputs and outputs lie where all see them."""
        return self

    def about(self) -> None:
        """Nothing needs to be known."""

    def run(self, task: FileTask, tell: Callable[[Progress], None]) -> FileDone:
        """One file; its error is a result."""
        try:
            return self._restore(task, tell)
        except VrTrtError as error:
            text = " ".join(str(error).split())
            return FileDone(error=text, exit_code=error.exit_code)

    def restorer(self, asked: Asked) -> Restorer:
        """The one for these settings; only one is kept open."""
        settings = {name: getattr(asked, name) for name in _OF_RESTORER}
        key = tuple(settings.values())
        if key not in self._open:
            for other in self._open.values():
                other.close()
            self._open.clear()
            self._open[key] = Restorer(**settings, threads=self.threads)
        return self._open[key]

    def _restore(self, task: FileTask, tell: Callable[[Progress], None]) -> FileDone:
        job = task.job
        options = run_options(job.asked, task.overwrite)
        kept = stopped_facts(job.output)
        if kept:
            settings = self.restorer(job.asked).settings(
                job.input, job.output, encoding=job.asked.encoding, options=options
            )
            same = _digest(kept) == _digest(settings)
            options = replace(options, resume=same, overwrite=task.overwrite or not same)
        report = self.restorer(job.asked).restore(
            job.input, job.output, encoding=job.asked.encoding, options=options, on_progress=tell
        )
        return FileDone(
            frames=report.frames,
            seconds=report.timing.seconds,
            fps=report.fps,
            warnings=report.warnings,
        )


class Batch:
    """The jobs of one manifest and what became of them."""

    def __init__(self, jobs: list[Job], report: Path, *, overwrite: bool) -> None:
        """`report`: the file that says what became of them; UsageError if it is another file."""
        self.jobs = jobs
        self.entries = [Entry(input=str(job.input), output=str(job.output)) for job in jobs]
        self.seconds = 0.0
        self._report = report
        self._overwrite = overwrite
        self._before = {entry.output: entry for entry in _read_report(report)}

    @property
    def exit_code(self) -> int:
        """0, or that of the first file that failed."""
        return next((entry.exit_code for entry in self.entries if entry.exit_code), 0)

    def count(self, status: Status) -> int:
        """How many files have that status."""
        return sum(entry.status == status for entry in self.entries)

    def run(self, group: WorkerGroup, on_entry: Callable[[Entry], None]) -> None:
        """Restore the files; `on_entry` is told of each once. InterruptedRun for Ctrl-C."""
        started = perf_counter()
        server = FileServer(threads=group.threads)
        on_gpu = bool(find_cards(group.gpus))
        tasks = []
        for job, entry in zip(self.jobs, self.entries, strict=True):
            task = self._task(server, job, entry, group)
            if task is not None:
                tasks.append(task)
            else:
                on_entry(self.entries[job.number])
        self._write(started)
        if not tasks:
            return
        # Another server than the one that planned: the networks are opened where they run.
        pool = group.pool(FileServer(threads=group.threads), on_gpu=on_gpu)
        try:
            schedule = Schedule(pool, give_up=self._failed)
            for task in tasks:
                schedule.add(task)
            while not schedule.idle:
                for task_said, message in schedule.step(REPORT_SECONDS):
                    if isinstance(task_said, FileTask) and not isinstance(message, Said):
                        if isinstance(message, Finished):
                            self._finished(task_said, message.result)
                        entry = self.entries[task_said.order]
                        if entry.status != "waiting":
                            self._write(started)
                            on_entry(entry)
        except KeyboardInterrupt:
            done = f"{self.count('done')} of {counted(len(self.jobs), 'file')}"
            raise InterruptedRun(
                f"stopped by the user with {done} done; the same command goes on"
            ) from None
        finally:
            pool.close()
            self._write(started)

    def _task(
        self, server: FileServer, job: Job, entry: Entry, group: WorkerGroup
    ) -> FileTask | None:
        """The task for a job; None if it is done already, or cannot be. MemoryBudgetError."""
        options = run_options(job.asked, overwrite=True)
        try:
            restorer = server.restorer(job.asked)
            plan = restorer.plan(job.input, job.output, job.asked.rate)
            settings = restorer.settings(
                job.input, job.output, encoding=job.asked.encoding, options=options
            )
            job.output.parent.mkdir(parents=True, exist_ok=True)
        except VrTrtError as error:
            self._fail(entry, error)
            return None
        if group.cluster is None:
            check_workers_memory(plan, group.size)
        entry.settings = _digest(settings)
        before = self._before.get(entry.output)
        ours = before is not None and before.status in ("done", "skipped") and _is_there(before)
        if ours and before is not None and before.settings == entry.settings:
            values = asdict(before) | {"status": "skipped", "reason": "done before"}
            self.entries[job.number] = Entry(**values)
            return None
        # A worker on another machine is in another folder.
        asked = replace(job.asked, model=full_model_name(job.asked.model))
        named = replace(job, input=job.input.absolute(), output=job.output.absolute(), asked=asked)
        return FileTask(job=named, overwrite=self._overwrite or ours)

    def _finished(self, task: FileTask, done: FileDone) -> None:
        entry = self.entries[task.order]
        entry.frames, entry.seconds, entry.fps = done.frames, done.seconds, done.fps
        entry.warnings = list(done.warnings)
        entry.status, entry.reason = ("failed" if done.exit_code else "done"), done.error
        entry.exit_code = done.exit_code
        if not done.exit_code and task.job.output.exists():
            entry.bytes = task.job.output.stat().st_size

    def _failed(self, task: Task, error: VrTrtError) -> None:
        self._fail(self.entries[task.order], error)

    def _fail(self, entry: Entry, error: VrTrtError) -> None:
        entry.status, entry.exit_code = "failed", error.exit_code
        entry.reason = " ".join(str(error).split())

    def _write(self, started: float) -> None:
        """The report as it is now, whole."""
        self.seconds = perf_counter() - started
        values = {
            **{status: self.count(status) for status in ("done", "failed", "skipped", "waiting")},
            "seconds": self.seconds,
            "files": [asdict(entry) for entry in self.entries],
        }
        fresh = self._report.with_name(f".{self._report.name}.partial")
        fresh.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, self._report)


def run_options(asked: Asked, overwrite: bool) -> RunOptions:
    """How a file is restored, as `Restorer` takes it."""
    return RunOptions(
        overwrite=overwrite,
        range=asked.range,
        cuts=asked.cuts,
        rate=asked.rate,
        deinterlace=asked.deinterlace,
    )


def _read_report(path: Path) -> list[Entry]:
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return [Entry(**values) for values in files]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"{path} is not a report of a batch: name another file with --report"
        ) from None


def _is_there(entry: Entry) -> bool:
    path = Path(entry.output)
    return path.is_file() and path.stat().st_size == entry.bytes


def _digest(settings: dict[str, Any]) -> str:
    """A hash of what decides the result, but for the workers' threads, which round the last bits."""
    what = {name: value for name, value in settings.items() if name not in ("threads", "format")}
    text = json.dumps(what, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
