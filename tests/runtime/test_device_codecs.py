"""Frames that stay on the card between decoder, loop and encoder: the order of their uses."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.codec_stand_ins import LentFrame, Nvdec, Nvenc
from tests.device_runs import YUV10, Setting, assert_equal, leave_out, restored
from tests.recorded_device import RaceError

from vr_trt.errors import DamagedInputError, InterruptedRun
from vr_trt.runtime import card_trials, device_encoding
from vr_trt.runtime.device_decoded import DecodedPicture
from vr_trt.runtime.device_encoding import EncoderFrames
from vr_trt.runtime.device_memory import CardWay, LoopSizes
from vr_trt.runtime.device_stages import DeviceStages
from vr_trt.runtime.frame_digest import frame_digest
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.pipeline import QUEUE_FRAMES
from vr_trt.runtime.planes import Planes, build_frame, take_planes, turn_planes
from vr_trt.runtime.scene_cuts import REACH, thumbnail
from vr_trt.runtime.shot import Shot

HOLDS = 5
WAY = CardWay(decoded=True, holds=HOLDS)
AHEAD = QUEUE_FRAMES + REACH  # frames that the reader is before the loop
SIZE = (24, 16)
CHOICES: list[dict[str, Any]] = [
    {},
    {"cut": True, "pixel": YUV10},
    {"step": 2, "overlap": 2, "correction": "none"},
]


@dataclass
class Run:
    """A film through stand-ins and a loop."""

    setting: Setting
    stages: DeviceStages
    nvdec: Nvdec
    nvenc: Nvenc
    looks: bool = True  # for cuts
    digests: list[str] = field(default_factory=list)
    done: list[Frame] = field(default_factory=list)
    queue: deque[Frame] = field(default_factory=deque)  # restored, not written

    def film(self, frames: list[Frame]) -> list[Frame]:
        """A shot; each frame is looked at when it is decoded, and waits before it is taken."""
        shot = Shot(self.stages.begin(self.setting.host_stages()), self.setting.profile)
        waiting: deque[Frame] = deque()
        for frame in self.decoded(frames):
            if self.looks:
                ours, theirs = (
                    thumbnail(f, self.setting.pixel) for f in (frame, frames[frame.pts // 3])
                )
                np.testing.assert_array_equal(ours, theirs)
            waiting.append(frame)
            del frame
            if len(waiting) > AHEAD:
                self.write(shot.push(waiting.popleft()))
        while waiting:
            self.write(shot.push(waiting.popleft()))
        self.write(shot.finish())
        while self.queue:
            self.encode(self.queue.popleft())
        self.kept(self.nvenc.drain())
        done, self.done = self.done, []
        return done

    def decoded(self, frames: list[Frame]) -> Iterator[Frame]:
        name = "yuv420p" if self.setting.pixel.bits == 8 else "yuv420p10le"
        assert self.stages.on_card.decoded is not None
        for frame in frames:
            there = self.nvdec.decode(build_frame(frame.planes, name))
            content = self.stages.on_card.decoded.take(there, to_host(there))
            yield Frame(content, frame.pts, frame.duration)
            del there, content

    def write(self, frames: Iterator[Frame]) -> None:
        """The loop is as far ahead of the writer as it may be."""
        for frame in frames:
            self.queue.append(frame)
            del frame
            if len(self.queue) > QUEUE_FRAMES:
                self.encode(self.queue.popleft())

    def encode(self, frame: Frame) -> None:
        """As a segment does: the digest, and then the encoder."""
        self.digests.append(frame_digest(frame))
        lent: Any = frame.content.av_frame()  # type: ignore[union-attr]
        lent.pts = frame.pts
        del frame
        self.kept(self.nvenc.take(lent))

    def kept(self, pictures: Iterator[tuple[int, Planes]]) -> None:
        self.done += [Frame(planes, pts, 3) for pts, planes in pictures]

    def close(self) -> None:
        self.stages.close()
        self.nvenc.close()
        self.nvdec.close()


def to_host(there: Any) -> Callable[[], Planes]:
    return lambda: take_planes(there.reformat(format=there.sw_format.name))


Open = Callable[..., Run]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Makes a run; PyAV's part, which would load CUDA, is the stand-in's."""
    av_frames = SimpleNamespace(from_dlpack=LentFrame)
    monkeypatch.setattr(device_encoding, "VideoFrame", av_frames)
    monkeypatch.setattr(device_encoding, "CudaContext", lambda **choices: choices)

    def make(kind: type[Setting] = Setting, **choices: Any) -> Run:
        setting = kind(folder=tmp_path / "model", **{"size": SIZE, **choices})
        stages = setting.on_device(monkeypatch, WAY)
        surfaces = stages._sizes.decoder_frames
        nvdec = Nvdec(setting.device, setting.size, setting.pixel.bits, surfaces)
        return Run(setting, stages, nvdec, Nvenc(setting.device, HOLDS))

    return make


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_frames_are_those_of_the_host(opened: Open, choices: dict[str, Any]) -> None:
    run = opened(**choices)
    device = run.setting.device
    device.asked.clear()
    for count in (23, 47):
        frames = run.setting.frames(count)
        with device.loop():
            ours = run.film(frames)
        theirs = restored(run.setting.shot_on_host(), frames)
        assert_equal(ours, theirs)
        assert run.digests[-count:] == [frame_digest(frame) for frame in theirs]
    # No plane crosses the bus: noise goes up, sums of cells and rows come down.
    uploads = device.asked.count("upload")
    assert 0 < uploads < 20 and device.asked.count("to host") == 0
    assert device.asked.count("download") == 2 * (23 + 47) and "copy_in" not in device.asked
    run.close()
    assert device.leaks() == ["1 x memory", "1 x stream"]


def test_frames_stay_on_the_card_by_triton_too(opened: Open) -> None:
    pytest.importorskip("triton")
    from tests.triton_runs import TritonSetting

    run = opened(TritonSetting, pixel=YUV10)
    frames, device = run.setting.frames(47), run.setting.device
    with device.loop():
        ours = run.film(frames)
    assert device.asked.count("to host") == 0
    assert_equal(ours, restored(run.setting.shot_on_host(), frames))
    run.close()
    assert device.leaks() == ["1 x stream"]


def test_a_shot_of_one_frame_reaches_the_encoder_too(opened: Open) -> None:
    run = opened()
    frames = run.setting.frames(1)
    for _ in range(2 * run.stages._sizes.sources):
        ours = run.film(frames)
    assert_equal(ours, restored(run.setting.shot_on_host(), frames))
    run.close()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_are_turned_on_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotation: int, mirrored: bool
) -> None:
    setting = Setting(folder=tmp_path / "model", size=SIZE, pixel=YUV10)
    way = CardWay(decoded=True, rotation=rotation, mirrored=mirrored)
    stages = setting.on_device(monkeypatch, way)
    lying = SIZE[::-1] if rotation % 180 else SIZE
    nvdec = Nvdec(setting.device, lying, 10, 1)
    (frame,) = Setting(folder=tmp_path / "model", size=lying, pixel=YUV10).frames(1)
    there = nvdec.decode(build_frame(frame.planes, "yuv420p10le"))
    assert stages.on_card.decoded is not None
    here = Frame(stages.on_card.decoded.take(there, to_host(there)), 0, 1)
    upright = Frame(turn_planes(frame.planes, rotation, mirrored), 0, 1)
    assert (here.width, here.height) == (upright.width, upright.height) == SIZE
    np.testing.assert_array_equal(thumbnail(here, setting.pixel), thumbnail(upright, setting.pixel))
    slot = stages.begin(setting.host_stages()).take(here).slot
    for name, plane in zip("yuv", upright.planes, strict=True):
        part = stages._sizes.source_layout.on_device(slot.tensor)[name]
        stages._lanes.device.synchronize(stages._lanes.upload)
        np.testing.assert_array_equal(part.numpy()[0], plane)
    del there, here
    stages.close()
    nvdec.close()


def test_another_format_on_the_way_is_refused(opened: Open) -> None:
    run = opened()
    there = run.nvdec.decode(build_frame(run.setting.frames(1)[0].planes, "yuv420p"))
    there.sw_format = SimpleNamespace(name="p010le")
    assert run.stages.on_card.decoded is not None
    with pytest.raises(DamagedInputError, match="changes to p010le on the way"):
        run.stages.on_card.decoded.take(there, to_host(there))
    del there
    run.close()


@pytest.mark.parametrize("change", [{"width": 63}, {"pixel": replace(YUV10, chroma=(1, 1))}])
def test_pictures_that_nv12_cannot_hold_cross_the_host(change: dict[str, Any]) -> None:
    info = replace(card_trials._SOURCE, **change)
    assert card_trials.why_not_decoded(info) == "a picture there has even sides, in 4:2:0"


def decoded_marks(run: Run) -> set[int]:
    decoded: Any = run.stages.on_card.decoded
    return {next(decoded._marks) for _ in range(64)}


def copied(run: Run) -> set[int]:
    decoded: Any = run.stages.on_card.decoded
    return {decoded._copied}


def outputs(event: str) -> Callable[[Run], set[int]]:
    return lambda run: {getattr(slot, event) for slot in run.stages._pixels._outputs._slots}


# Every wait that the codecs bring: for what, and which stream waits.
WAITS: dict[str, tuple[Callable[[Run], set[int]], Callable[[Run], int]]] = {
    "the loop, for the decoder": (decoded_marks, lambda run: run.stages._lanes.upload),
    "the cuts, for the decoder": (decoded_marks, lambda run: run.stages.on_card.decoded._look),  # type: ignore[union-attr]
    "the decoder, for the loop": (copied, lambda run: 1),
    "what packs, for to_video": (outputs("_filled"), lambda run: run.stages._lanes.download),
    "to_video, for what packs": (outputs("_read"), lambda run: run.stages._lanes.post),
}


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.parametrize("left_out", ["wait", "record"])
def test_a_wait_that_is_left_out_is_found(
    opened: Open, monkeypatch: pytest.MonkeyPatch, name: str, left_out: str
) -> None:
    monkeypatch.setattr(LoopSizes, "sources", 200)  # else other rings' waits do the work of some
    monkeypatch.setattr(LoopSizes, "windows", 20)
    run = opened()
    device, (events_of, waiter_of) = run.setting.device, WAITS[name]
    run.looks = "cuts" in name  # which waits, and orders what comes after
    leave_out(monkeypatch, device, left_out, events_of(run), waiter_of(run))
    with pytest.raises(RaceError, match="may still use"):
        run.film(run.setting.frames(120))


def test_an_encoder_that_is_told_too_early_is_found(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened()
    encoder: Any = run.stages.on_card.encoder
    for slot in encoder._free:
        monkeypatch.setattr(slot.seen, "wait", lambda: None)
    monkeypatch.setattr(run, "digests", SimpleNamespace(append=lambda digest: None))
    monkeypatch.setattr("tests.runtime.test_device_codecs.frame_digest", lambda frame: "")
    with pytest.raises(RaceError, match="encode on stream .* uses memory"):
        run.film(run.setting.frames(47))


def test_a_digest_that_is_read_too_early_is_found(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened()
    encoder: Any = run.stages.on_card.encoder
    for slot in encoder._free:
        monkeypatch.setattr(slot.seen, "wait", lambda: None)
    with pytest.raises(RaceError, match="the host uses memory"):
        run.film(run.setting.frames(47))


def test_a_slot_that_is_free_before_the_encoder_has_read_it_is_found(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoopSizes, "encoder_slots", HOLDS)
    run = opened()
    monkeypatch.setattr("tests.runtime.test_device_codecs.QUEUE_FRAMES", 0)
    lend = EncoderFrames.lend
    monkeypatch.setattr(EncoderFrames, "lend", lambda self, slot, owner: lend(self, slot, None))
    with pytest.raises(RaceError, match="place on stream .* uses memory"):
        run.film(run.setting.frames(120))


def test_a_decoded_frame_that_is_not_held_is_found(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg decodes into its surface again, though the loop has not copied it."""
    run = opened()
    made = DecodedPicture.__init__

    def careless(self: DecodedPicture, *arguments: Any) -> None:
        made(self, *arguments)
        self._frame = self._to_host = None  # type: ignore[assignment]

    monkeypatch.setattr(DecodedPicture, "__init__", careless)
    frames = run.setting.frames(47)
    run.nvdec.surfaces = run.nvdec.surfaces[:4]
    run.nvdec._free = deque(run.nvdec.surfaces)
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        assert_equal(run.film(frames), restored(run.setting.shot_on_host(), frames))
    run.stages.close()


def test_an_encoder_that_gives_nothing_back_is_told_of(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_encoding, "PATIENCE", 0.05)
    monkeypatch.setattr(LentFrame, "give_back", lambda self: None)
    run = opened()
    with pytest.raises(RuntimeError, match="the encoder gives no frame back: report this"):
        run.film(run.setting.frames(47))
    run.stages.close()


def test_a_stop_wakes_who_waits_for_the_encoder(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LentFrame, "give_back", lambda self: None)
    run = opened()
    Timer(0.3, run.stages.cancel).start()
    with pytest.raises(InterruptedRun):
        while True:
            run.film(run.setting.frames(47))
    run.stages.close()


def test_memory_is_as_announced(opened: Open) -> None:
    run = opened(pixel=YUV10)
    sizes, memory, device = run.stages._sizes, run.setting.device.memory, run.setting.device
    run.film(run.setting.frames(47))
    encoder: Any = run.stages.on_card.encoder
    taken = sum(len(memory[x.address]) for slot in encoder._free for x in (slot.frame, slot.sums))
    assert taken == sizes.device_rings()["encoder frames"] > 0
    assert len(encoder._free) == sizes.encoder_slots
    surfaces = sum(len(memory[surface]) for surface in run.nvdec.surfaces)
    assert surfaces == sizes.device_rings()["decoded frames"]
    assert run.nvdec.fewest >= 0
    decoded: Any = run.stages.on_card.decoded
    cells = len(decoded._cells.memory.memory)
    locked = sum(len(x.memory) for x in device.locked.values())
    assert locked == sum(sizes.host_rings().values()) + cells
    run.close()
