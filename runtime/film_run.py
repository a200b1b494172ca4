"""One file restored: a run begun, or a stopped one continued, up to the finished output."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_trt.engines.profiles import Profile
from vr_trt.errors import InterruptedRun, UsageError
from vr_trt.runtime.counted import counted
from vr_trt.runtime.cut_list import cuts_from
from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.entry import Entry, entry_at
from vr_trt.runtime.film import EntryMissed, Film, Resume
from vr_trt.runtime.film_source import FilmSource, Range, parse_range
from vr_trt.runtime.frames import VideoInfo
from vr_trt.runtime.image_sequence import check_numbered, is_numbered, numbered
from vr_trt.runtime.journal import Journal, Segment, folder_of, stopped_run
from vr_trt.runtime.pipe import DASH
from vr_trt.runtime.pipeline import Pipeline, Progress, Timing
from vr_trt.runtime.publish import check_target, is_image_path, output_errors
from vr_trt.runtime.reader import Reader, SeekMissed, can_seek
from vr_trt.runtime.run_options import RunOptions, next_time
from vr_trt.runtime.scene_cuts import REACH
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.stage_trace import StageTime, tracing
from vr_trt.runtime.writer import Writer

if TYPE_CHECKING:
    from vr_trt.runtime.device_decoded import DecodedPictures

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What restores frames: one model at one size."""

    make_shot: Callable[[Entry], Shot]
    step_latents: Callable[[], int]  # latents of one VAE step; opens a stage
    cancel: Callable[[], None]  # ends the call in progress, from any thread
    profile: Profile
    decoded: "DecodedPictures | None" = None  # where NVDEC's frames stay on the card


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What a run did."""

    frames: int  # of the output
    timing: Timing
    stages: dict[str, StageTime]
    warnings: tuple[str, ...]


class FilmRun:
    """One run of one file, by this process alone."""

    def __init__(
        self,
        info: VideoInfo,
        spec: OutputSpec,
        options: RunOptions,
        facts: Mapping[str, Any],
        total: int | None,
    ) -> None:
        """`facts`: all that the result depends on, for the journal. UsageError for bad options."""
        _check_beside((options.trace, options.report), (info.path, spec.path))
        self._info = info
        self._range = parse_range(options.range) if options.range else Range()
        self._cuts = cuts_from(options.cuts)
        self._stop_at = next_time(options.until, datetime.now()) if options.until else None
        self._total = total if self._range.whole else None
        # What a run left may be replaced by --resume: the joined file, images of an open segment.
        there = options.resume and (
            _has_journal(spec.path)
            if is_numbered(spec.path)
            else stopped_run(spec.path) == "complete"
        )
        self._spec = replace(spec, overwrite=spec.overwrite or there, clipped=not self._range.whole)
        self._resume = options.resume
        if self._resume and (info.pipe is not None or spec.path == DASH):
            raise UsageError("a pipe cannot be resumed: give the names of files")
        self._trace = options.trace
        cuts = sorted(self._cuts.listed) if self._cuts.mode == "list" else self._cuts.mode
        self.facts = {**facts, "range": options.range or "all", "cuts": cuts}

    def run(self, make_work: Callable[[], Work], on_progress: OnProgress) -> Done:
        """Restore the file. After InterruptedRun there is a journal if a segment was complete."""
        one_image = is_image_path(self._spec.path) and not is_numbered(self._spec.path)
        if one_image or self._spec.path == DASH:
            return self._attempt(make_work(), None, None, on_progress)
        if self._finished_before():
            return self._nothing_to_do()
        check_target(self._spec.path, self._info.path, self._spec.overwrite)
        check_numbered(self._spec.path, self._spec.overwrite)  # before the journal is touched
        # From a key frame before the shot's last frames; else from the shot's start, which is exact
        # for a network that looks further back than it was given, or an input that cannot be sought.
        for exact in (False, True):
            journal = self._open_journal()
            try:
                journal.forget_ahead()
                work = make_work()  # again after a failure, which cancels it
                resume = _resume_point(journal, work, exact) if journal.segments else None
                return self._attempt(work, journal, resume, on_progress, seek=not exact)
            except (EntryMissed, SeekMissed):
                continue
            finally:
                journal.close(keep=True)
        raise UsageError(
            f"{self._spec.path}: the frames before the stop do not come out as they did: a library "
            "or the machine has changed; start over with --overwrite"
        )

    def _finished_before(self) -> bool:
        """Whether the output is there and no journal: the stopped run had ended but for its exit."""
        path = self._spec.path
        if not self._resume or self._spec.overwrite:
            return False
        if is_numbered(path):
            return numbered(path, 1).is_file() and not _has_journal(path)
        return path.is_file() and stopped_run(path) is None

    def _nothing_to_do(self) -> Done:
        journal = Journal(self._spec.path, self.facts)
        journal.close(keep=False)
        return Done(
            frames=0,
            timing=Timing(),
            stages={},
            warnings=(f"{self._spec.path} is there, and no stopped run of it: nothing was done",),
        )

    def _open_journal(self) -> Journal:
        path = self._spec.path
        if not self._resume and not self._spec.overwrite and stopped_run(path) is not None:
            raise UsageError(
                f"a stopped run of {path} is kept: --resume goes on with it, --overwrite starts over"
            )
        with output_errors(path):
            fresh = not (self._resume and _has_journal(path))
            journal = Journal(path, self.facts)
            with ExitStack() as undo:
                # A run that a stop, or a full disk, ends here leaves no folder with nothing in it.
                undo.callback(partial(journal.close, keep=False) if fresh else journal.release)
                if self._resume:
                    journal.resume()
                else:
                    journal.begin()
                undo.pop_all()
        return journal

    def _attempt(
        self,
        work: Work,
        journal: Journal | None,
        resume: Resume | None,
        on_progress: OnProgress,
        seek: bool = True,
    ) -> Done:
        before = journal.frames if journal is not None else 0
        anchor = self._anchor(journal, resume) if journal and resume and seek else None
        start = anchor.start_pts if anchor else None
        with (
            tracing(self._trace) as trace,
            Reader(self._info.path, self._info, start, work.decoded) as reader,
        ):
            writer = Writer(self._spec, self._info, journal)
            if journal is not None and journal.complete:
                writer.close()
                timing = Timing()
            else:
                skip = resume.first_read if resume is not None else 0
                source = FilmSource(reader, self._info, self._range, self._cuts, skip)
                if anchor:
                    source.begin_at(anchor.first)
                pipeline = Pipeline(
                    source,
                    Film(work.make_shot, resume),
                    writer,
                    cancel=work.cancel,
                    total=self._total,
                    before=before,
                )
                timing = self._watched(pipeline, writer, on_progress)
            notes = (*self._info.guesses, *reader.warnings, *writer.warnings)
        return Done(
            frames=before + timing.frames, timing=timing, stages=trace.stages, warnings=notes
        )

    def _anchor(self, journal: Journal, resume: Resume) -> Segment | None:
        """The last segment that begins well before what must be read; None: read from the start.

        The detector of cuts looks REACH frames back.
        """
        if not self._range.whole or not can_seek(self._info):
            return None
        early = [s for s in journal.segments if 0 < s.first <= resume.first_read - REACH]
        return early[-1] if early else None

    def _watched(self, pipeline: Pipeline, writer: Writer, on_progress: OnProgress) -> Timing:
        def report(progress: Progress) -> None:
            on_progress(progress)
            if self._stop_at is not None and datetime.now() >= self._stop_at:
                raise InterruptedRun(f"stopped at {self._stop_at:%H:%M}")

        try:
            return pipeline.run(report)
        except InterruptedRun as stop:
            if writer.kept:
                raise InterruptedRun(
                    f"{stop}; {counted(writer.kept, 'frame is', 'frames are')} kept, --resume goes on"
                ) from None
            raise


def _resume_point(journal: Journal, work: Work, exact: bool) -> Resume | None:
    """Where a stopped run continues; None if only the joining is missing.

    `exact`: from the shot's start, whatever the network.
    """
    last = journal.segments[-1]
    if last.following is None:
        return None
    frame, shot = last.following.frame, last.following.shot
    entry = Entry(frame=frame - shot)
    if not exact:
        entry = entry_at(frame - shot, work.profile, work.step_latents())
    return Resume(frame=frame, shot=shot, tail=last.tail, entry=entry)


def _has_journal(output: Path) -> bool:
    """Whether a run of `output` was begun and not finished."""
    return (folder_of(output) / "journal.jsonl").is_file()


def _check_beside(paths: tuple[Path | None, ...], films: tuple[Path, ...]) -> None:
    """UsageError, before work, for a report or trace that cannot be, or is one of the `films`."""
    given = [path for path in paths if path is not None]
    for path in given:
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            raise UsageError(f"{path} cannot be written: give a file name in a folder that can")
        if path.resolve() in [film.resolve() for film in films]:
            raise UsageError(
                f"{path} is the input or the output of this run: give the report another name"
            )
    if len(given) != len({path.resolve() for path in given}):
        raise UsageError(f"{given[0]} cannot be both report and trace: give two names")
