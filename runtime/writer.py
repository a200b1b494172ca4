"""The finished file: restored frames and everything else of the input, published in one step."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from vr_trt.errors import DamagedInputError, UsageError
from vr_trt.runtime.copy_plan import CopyPlan, plan_copy, plan_streams
from vr_trt.runtime.counted import counted
from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.frames import Frame, VideoInfo
from vr_trt.runtime.hdr import hdr_notes
from vr_trt.runtime.image_sequence import check_numbered, is_numbered
from vr_trt.runtime.images_sink import ImagesSink
from vr_trt.runtime.journal import Journal
from vr_trt.runtime.live_sink import LiveSink
from vr_trt.runtime.mux import FilmFile, check_muxer
from vr_trt.runtime.pipe import DASH
from vr_trt.runtime.publish import (
    check_target,
    is_image_path,
    muxer_of,
    output_errors,
    publish,
    remove_partial,
)
from vr_trt.runtime.segments import SegmentSink
from vr_trt.runtime.still import ImageSink, check_image_codec

__all__ = ["OutputSpec", "Writer", "check_output"]


def check_output(target: OutputSpec, source: VideoInfo) -> CopyPlan:
    """Find out before any work whether the output can be written, and what it will hold.

    Raises UsageError saying what to do; what must be left out is in the plan's warnings.
    """
    check_target(target.path, source.path, target.overwrite)
    if is_image_path(target.path):
        _check_image(target, source)
        return CopyPlan()
    check_muxer(target, source)
    plan = _planned_copy(target, source)
    notes = list(plan.warnings)
    if target.codec == "y4m" and source.sample_aspect != 1:
        notes.append(f"y4m is written without the shape of pixels ({source.sample_aspect})")
    carrier = target.coder.encoder if target.nvenc else target.codec
    notes += hdr_notes(source.hdr, target.pixel.transfer, carrier, target.pixel.bits)
    return replace(plan, warnings=tuple(notes))


def _check_image(target: OutputSpec, source: VideoInfo) -> None:
    check_image_codec(target.path)
    check_numbered(target.path, target.overwrite)
    if not is_numbered(target.path) and not source.is_image and source.frames != 1:
        raise UsageError(
            f"{target.path}: a video does not fit into one image; write an .mp4, or %05d.png"
        )


def _planned_copy(target: OutputSpec, source: VideoInfo) -> CopyPlan:
    """What becomes of the streams beside the video."""
    if target.codec == "y4m":
        silent = ("y4m has no sound: it is left out",) if source.audio_streams else ()
        return CopyPlan(warnings=silent)
    muxer = muxer_of(target.path, target.codec)
    if source.pipe is None:
        others = None if source.is_image else source.others
        return plan_copy(others, muxer, target.copy_audio) if others else CopyPlan()
    if source.pipe.carries(live=target.path == DASH):
        container, video = source.pipe.container, source.pipe.stream
        return plan_streams(container, video, {}, muxer, target.copy_audio)
    kinds = "mkv and mp4" if target.path == DASH else "mkv"
    silent = (f"sound from standard input is copied from {kinds} only: it is left out",)
    return CopyPlan(warnings=silent if source.audio_streams else ())


class Writer:
    """Writes frames in order; `close` publishes the file, `abort` keeps what can be resumed.

    As a context manager it closes, or aborts where the block raised. `warnings` holds one line for
    each thing that was left out. Everything raises UsageError where the output cannot be written.
    A video is written as segments that the journal lists and is put together at the end; a journal
    that lists some already goes on after them.
    """

    def __init__(
        self, target: OutputSpec, source: VideoInfo, journal: Journal | None = None
    ) -> None:
        self._plan = check_output(target, source)
        self._target = target
        self._source = source
        self._journal = journal
        self._frames = 0
        self._open = True
        self._broken = 0  # packets of copied streams that were lost
        self._sink: ImageSink | ImagesSink | LiveSink | SegmentSink
        remove_partial(target.path)
        with ExitStack() as undo, output_errors(target.path):
            undo.callback(remove_partial, target.path)
            if target.path == DASH:
                self._sink = LiveSink(target, source, self._plan)
            elif is_image_path(target.path) and not is_numbered(target.path):
                self._sink = ImageSink(target)
            else:
                if self._journal is None:
                    self._journal = Journal(target.path, {})
                    self._journal.begin()
                undo.callback(self._journal.close, keep=True)
                if is_numbered(target.path):
                    self._sink = ImagesSink(target, self._journal)
                else:
                    if source.pipe is not None and source.pipe.carries(live=False):
                        source.pipe.put_aside()
                    self._sink = SegmentSink(target, source, self._journal)
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    @property
    def warnings(self) -> list[str]:
        """What does not reach the output, one line each."""
        lines = list(self._plan.warnings)
        if self._broken:
            lost = ("damaged packet of other streams was", "damaged packets of other streams were")
            lines.append(f"{counted(self._broken, *lost)} left out")
        return lines

    @property
    def kept(self) -> int:
        """Frames that --resume would not make again."""
        return self._journal.frames if self._journal is not None else 0

    def write(self, frame: Frame) -> None:
        """Append one frame of the announced size and pixel format, later than the one before."""
        with self._aborting(), output_errors(self._target.path):
            self._sink.write(frame)
        self._frames += 1

    def close(self) -> None:
        """Finish the file, bring it to disk and give it its name; does nothing the second time."""
        if not self._open:
            return
        with self._aborting():
            if not self._frames + self.kept:
                raise DamagedInputError(f"{self._source.path}: no frame was restored")
            with output_errors(self._target.path):
                self._sink.finish()
                if isinstance(self._sink, LiveSink):
                    self._broken = self._sink.broken
                if isinstance(self._sink, SegmentSink) and self._journal is not None:
                    self._broken = self._join(self._journal)
                if isinstance(self._sink, ImageSink | SegmentSink):
                    publish(self._target.path)
        self._open = False
        if self._journal is not None:
            self._journal.close(keep=False)

    def abort(self) -> None:
        """Stop; complete segments stay for --resume, an older file of that name stays as it was."""
        if not self._open:
            return
        self._open = False
        self._sink.discard()
        remove_partial(self._target.path)
        if self._journal is not None:
            self._journal.close(keep=True)

    def _join(self, journal: Journal) -> int:
        """Put the file together from its segments; the packets that were lost."""
        file = FilmFile(self._target, self._source, self._plan)
        with ExitStack() as undo:
            undo.callback(file.discard)
            file.join(journal)
            undo.pop_all()
        return file.broken

    @contextmanager
    def _aborting(self) -> Iterator[None]:
        """Abort where the block raises."""
        with ExitStack() as undo:
            undo.callback(self.abort)
            yield
            undo.pop_all()
