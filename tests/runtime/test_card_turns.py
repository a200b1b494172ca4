"""Parts that take turns on the card: the same frames, so many bytes, and what is left out is found."""

from collections.abc import Collection
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from tests.device_runs import assert_equal, restored
from tests.recorded_device import RaceError, RecordedDevice

pytest.importorskip("triton")

from tests.triton_runs import TritonSetting

from vr_trt.engines.rota import PARTS, Rota
from vr_trt.errors import InterruptedRun, MemoryBudgetError, ModelError
from vr_trt.runtime import triton_loop
from vr_trt.runtime.card_turns import CardTurns
from vr_trt.runtime.device_loop import device_stages
from vr_trt.runtime.device_stages import DeviceStages
from vr_trt.runtime.entry import entry_at
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.stage_trace import tracing

ROTAS = [
    ("encoder", "generator"),
    ("encoder", "decoder"),
    ("generator", "decoder"),
    PARTS,
]
CHOICES: list[dict[str, Any]] = [{"turns": turns} for turns in ROTAS]
CHOICES += [{"turns": PARTS, "step": 2, "overlap": 2}, {"turns": PARTS, "overlap": 0}]
FRAMES = 68  # of a shot: 18 latents, and so four windows of six whose neighbours share one or more


class Copies:
    """What is copied between the mirrors and the shared memory, in order: (way, part, bytes)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, turns: CardTurns) -> None:
        device = turns._device
        self.made: list[tuple[str, str, int]] = []
        self.skip: set[tuple[str, str]] = set()
        self._parts = {
            id(memory): part for slice in turns._slices for part, memory in slice.mirrors.items()
        }
        upload, download = device.upload, device.download

        def counted_upload(address: int, memory: Any, size: int, stream: int) -> None:
            if self._counts("in", memory, size):
                upload(address, memory, size, stream)

        def counted_download(memory: Any, address: int, size: int, stream: int) -> None:
            if self._counts("out", memory, size):
                download(memory, address, size, stream)

        monkeypatch.setattr(device, "upload", counted_upload)
        monkeypatch.setattr(device, "download", counted_download)

    @property
    def bytes(self) -> int:
        return sum(size for _, _, size in self.made)

    def _counts(self, way: str, memory: Any, size: int) -> bool:
        part = self._parts.get(id(memory))
        if part is not None:
            self.made.append((way, part, size))
        return part is None or (way, part) not in self.skip


def opened(
    setting: TritonSetting, monkeypatch: pytest.MonkeyPatch
) -> tuple[DeviceStages, CardTurns]:
    setting.prepare(monkeypatch)
    model = setting.model()
    stages = device_stages(model, setting.way, setting.profile, seed=7)
    assert model.turns is not None
    return stages, model.turns


def shot_of(setting: TritonSetting, stages: DeviceStages) -> Shot:
    return Shot(stages.begin(setting.host_stages()), setting.profile)


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_frames_are_those_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choices: dict[str, Any]
) -> None:
    """Of several shots; within the loop nothing is waited for or taken."""
    setting = TritonSetting(folder=tmp_path / "model", **choices)
    stages, _ = opened(setting, monkeypatch)
    with setting.device.loop():
        for count in (23, FRAMES, 30):
            frames = setting.frames(count, seed=count)
            ours = restored(shot_of(setting, stages), frames)
            assert_equal(ours, restored(setting.shot_on_host(), frames))
    stages.close()


def test_an_entry_into_a_shot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
    entry = entry_at(401, setting.profile, 1)
    assert entry.first_read > 0
    frames = setting.frames(420)[entry.first_read :]
    stages, _ = opened(setting, monkeypatch)
    with setting.device.loop():
        shot = Shot(stages.begin(setting.host_stages()), setting.profile, entry)
        ours = restored(shot, frames)
    assert_equal(ours, restored(setting.shot_on_host(entry), frames))
    stages.close()


@pytest.mark.parametrize("turns", ROTAS[2:], ids="-".join)
def test_pictures_among_shots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: Collection[str]
) -> None:
    """Their stages are opened, and run once by that, while others' content lies there."""
    setting = TritonSetting(folder=tmp_path / "model", turns=turns)
    setting.prepare(monkeypatch)
    model = setting.model()
    stages = device_stages(model, setting.way, setting.profile, seed=7)
    for count in (1, 30, 1, 1, 23, 1):
        frames = setting.frames(count, seed=count)
        shot = Shot(stages.begin(setting.host_stages(model)), setting.profile)
        assert_equal(restored(shot, frames), restored(setting.shot_on_host(), frames))
    stages.close()


def test_a_picture_brings_nothing_but_its_generators_weights() -> None:
    device = RecordedDevice()
    rota, stream = Rota({"encoder": 512, "generator": 256, "decoder": 1024}), device.stream()
    turns = CardTurns(device, stream, device.allocate(rota.memory, stream), rota)
    for stage in ("generator", "encode_start", "decode_start"):
        turns.enter(stage)
    device.asked.clear()
    for stage in ("encode_image", "decode_image", "generator_image", "generator"):
        turns.enter(stage)
    assert device.asked == ["download", "upload"]  # the decoder's states, the weights


@pytest.mark.parametrize("turns", [(), PARTS], ids="-".join)
def test_the_host_may_feed_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: Collection[str]
) -> None:
    """It opens a stage when it first needs one, and a start anew for every shot."""
    setting = TritonSetting(folder=tmp_path / "model", turns=turns)
    setting.prepare(monkeypatch)
    model = setting.model()
    plain = TritonSetting(folder=tmp_path / "model")
    for count in (FRAMES, 1, 23):
        frames = setting.frames(count, seed=count)
        ours = restored(Shot(setting.host_stages(model), setting.profile), frames)
        assert_equal(ours, restored(plain.shot_on_host(), frames))
    assert (model.turns is not None) == bool(turns)


@pytest.mark.parametrize("stop", [17, 24, 45])
def test_a_shot_that_is_given_up_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """The next loop has the same sessions, as when a program restores one film after the other."""
    setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
    setting.prepare(monkeypatch)
    model = setting.model()
    stages = device_stages(model, setting.way, setting.profile, seed=7)
    frames = setting.frames(FRAMES, seed=1)
    list(chain.from_iterable(map(shot_of(setting, stages).push, frames[:stop])))
    stages.cancel()
    with pytest.raises(InterruptedRun):
        stages.take(frames[stop])
    stages.close()
    stages = device_stages(model, setting.way, setting.profile, seed=7)
    again = setting.frames(FRAMES, seed=2)
    ours = restored(shot_of(setting, stages), again)
    assert_equal(ours, restored(setting.shot_on_host(), again))
    stages.close()


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_a_copy_that_fails_ends_the_run_and_the_next_one_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
    setting.prepare(monkeypatch)
    model, left = setting.model(), [4 * failing]
    stages = device_stages(model, setting.way, setting.profile, seed=7)
    assert model.turns is not None
    bring = model.turns._bring

    def fails(*arguments: Any) -> None:
        if not left[0]:
            raise ModelError("CUDA failed")
        left[0] -= 1
        bring(*arguments)

    frames = setting.frames(FRAMES)
    with monkeypatch.context() as patch:
        patch.setattr(model.turns, "_bring", fails)
        with pytest.raises(ModelError, match="CUDA failed"):
            restored(shot_of(setting, stages), frames)
    stages.close()
    stages = device_stages(model, setting.way, setting.profile, seed=7)
    ours = restored(shot_of(setting, stages), frames)
    assert_equal(ours, restored(setting.shot_on_host(), frames))
    stages.close()


@pytest.mark.parametrize("turns", ROTAS, ids="-".join)
def test_bytes_over_the_bus_are_as_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: Collection[str]
) -> None:
    """For every window within a shot; a part that goes on brings nothing."""
    setting = TritonSetting(folder=tmp_path / "model", turns=turns)
    stages, found = opened(setting, monkeypatch)
    rota, copies = found._rota, Copies(monkeypatch, found)
    restore, at_window = stages.restore, []

    def counted(start: int, latents: Any) -> Any:
        at_window.append(copies.bytes)
        return restore(start, latents)

    monkeypatch.setattr(stages, "restore", counted)
    for count in (FRAMES, FRAMES):
        restored(shot_of(setting, stages), setting.frames(count))
    windows = len(at_window) // 2
    assert windows == 4
    steps = [later - before for before, later in pairwise(at_window)]
    assert steps[1 : windows - 1] == [rota.moved] * (windows - 2)
    assert max(steps) == rota.moved and sum(steps) < len(steps) * rota.moved
    weights = [way for way, part, _ in copies.made if part == "generator"]
    assert weights.count("out") <= 1  # after they came from the plan
    stages.close()


def test_states_of_a_shot_that_is_over_are_not_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shot of one window: only weights come in, and what has been encoded goes out once."""
    setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
    stages, turns = opened(setting, monkeypatch)
    restored(shot_of(setting, stages), setting.frames(21))
    copies = Copies(monkeypatch, turns)
    restored(shot_of(setting, stages), setting.frames(21))
    ways = [(way, part) for way, part, _ in copies.made]
    assert set(ways) == {("out", "encoder"), ("in", "generator")}
    stages.close()


def locked_bytes(device: RecordedDevice) -> int:
    return sum(len(x.memory) for x in device.locked.values())


def test_memory_is_as_announced_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for turns in ROTAS:
        setting = TritonSetting(folder=tmp_path / "-".join(turns), turns=turns)
        setting.prepare(monkeypatch)
        model, device = setting.model(), setting.device
        stages = device_stages(model, setting.way, setting.profile, seed=7)
        assert model._triton is not None and model._triton.shared.turns is not None
        rota = model._triton.shared.rota
        assert len(model._triton.shared.turns) == rota.memory
        rings = sum(stages._sizes.host_rings().values())
        assert locked_bytes(device) == rings + rota.mirrors
        stages.close()
        assert locked_bytes(device) == rota.mirrors
        model.close()
        model.close()
        assert device.leaks() == ["1 x stream"]


def test_a_host_without_room_for_the_mirrors() -> None:
    class Full(RecordedDevice):
        def page_locked(self, size: int) -> Any:
            if len(self.locked) == 2:
                raise MemoryBudgetError("out of memory")
            return super().page_locked(size)

    device = Full()
    rota = Rota({"encoder": 512, "generator": 256, "decoder": 1024})
    with pytest.raises(MemoryBudgetError, match="cannot page-lock the 0 MiB"):
        CardTurns(device, device.stream(), device.allocate(1024, 0), rota)
    assert device.leaks() == ["1 x memory", "1 x stream"]


VERBS = {"encoder": "encode", "generator": "generator", "decoder": "decode"}
CALLS = st.lists(st.sampled_from(["start", "step", "", "image"]).flatmap(
    lambda call: st.tuples(st.sampled_from(PARTS), st.just(call))
), max_size=30)  # fmt: skip


@given(st.dictionaries(st.sampled_from(PARTS), st.integers(1, 40), min_size=2), CALLS)
@settings(max_examples=150, deadline=None)
def test_every_call_finds_what_the_last_one_of_its_part_left(
    sizes: dict[str, int], calls: list[tuple[str, str]]
) -> None:
    """Whatever is called in between; a shot's first calls find nothing."""
    device, random = RecordedDevice(), np.random.default_rng(0)
    rota, stream = Rota(sizes), device.stream()
    address = device.allocate(rota.memory, stream)
    turns = CardTurns(device, stream, address, rota)
    left: dict[str, bytes] = {}
    for part, call in [("generator", ""), ("encoder", "start"), *calls]:
        is_generator = part == "generator"
        if not is_generator and (call == "" or (call == "step" and part not in left)):
            continue  # a step comes after a start
        call = ("image" if call == "image" else "") if is_generator else call
        turns.enter("_".join(filter(None, (VERBS[part], call))))
        device.synchronize(stream)
        if call == "start":
            left.pop(part, None)
            if part == "encoder":
                left.pop("decoder", None)
        if part not in sizes or (call == "image" and not is_generator):
            continue
        if part in left:
            assert device.read(address, sizes[part]).tobytes() == left[part]
        if not is_generator or part not in left:
            left[part] = random.bytes(sizes[part])
            device.write(address, left[part])


EVERY = [
    ("in", "encoder"), ("out", "encoder"), ("in", "generator"), ("in", "decoder"), ("out", "decoder"),
]  # fmt: skip


@pytest.mark.parametrize("left_out", EVERY, ids="-".join)
def test_a_copy_that_is_left_out_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: tuple[str, str]
) -> None:
    setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
    stages, turns = opened(setting, monkeypatch)
    Copies(monkeypatch, turns).skip.add(left_out)
    check_frames_differ(setting, stages)


def test_weights_that_are_not_kept_when_another_comes_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go out once, when the decoder is opened after them."""
    setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
    setting.prepare(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(RecordedDevice, "download", lambda *_: None)
        stages = device_stages(setting.model(), setting.way, setting.profile, seed=7)
    check_frames_differ(setting, stages)


def test_a_slice_that_is_left_out_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = TritonSetting(folder=tmp_path / "model").frames(FRAMES)
    for missing in range(2):
        setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
        stages, turns = opened(setting, monkeypatch)
        assert len(turns._slices) == 2
        slices = [*turns._slices]
        turns._slices[:] = [slices[1 - missing]]
        ours = restored(shot_of(setting, stages), frames)
        turns._slices[:] = slices
        differ(ours, restored(setting.shot_on_host(), frames))
        stages.close()


def test_a_part_that_enters_after_its_call_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
    setting.prepare(monkeypatch)

    def late(stage: Any, stream: int) -> None:
        stage._replay(stream)
        stage._session.enter(stream)

    monkeypatch.setattr(triton_loop.LoopedStage, "enqueue", late)
    stages = device_stages(setting.model(), setting.way, setting.profile, seed=7)
    check_frames_differ(setting, stages)


@pytest.mark.parametrize("part", ["encode", "generator", "decode"])
def test_a_part_that_does_not_enter_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """It works on what another has there."""
    setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
    stages, _ = opened(setting, monkeypatch)
    networks = stages._networks
    calls = [stages._generator._call]
    for half in (*networks.encoder, *networks.decoder):
        calls += [half._start, *half._steps]
    for call in calls:
        if call._name.startswith(part):
            looped: Any = call._session
            monkeypatch.setattr(looped._session, "enter", lambda stream: None)
    check_frames_differ(setting, stages)


def test_a_mirror_of_before_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if what a part changes were still what its mirror holds."""
    setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
    stages, turns = opened(setting, monkeypatch)

    class Kept(set[str]):
        def discard(self, part: object) -> None:
            if forgetting:
                super().discard(part)

    forgetting = True
    forget = CardTurns._forget

    def forgets(self: CardTurns, part: str) -> None:
        nonlocal forgetting
        forgetting = True
        forget(self, part)
        forgetting = False

    monkeypatch.setattr(CardTurns, "_forget", forgets)
    for slice in turns._slices:
        slice.kept = Kept(slice.kept)
    forgetting = False
    check_frames_differ(setting, stages)


def test_copies_on_another_stream_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nothing orders them with the networks shows."""
    setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
    stages, turns = opened(setting, monkeypatch)
    bring, other = turns._bring, stages._lanes.upload
    monkeypatch.setattr(turns, "_bring", lambda slice, part, stream: bring(slice, part, other))
    with pytest.raises(RaceError, match="may still use"):
        restored(shot_of(setting, stages), setting.frames(FRAMES))


def test_a_trace_shows_the_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = TritonSetting(folder=tmp_path / "model", turns=PARTS)
    stages, turns = opened(setting, monkeypatch)
    path = tmp_path / "trace.json"
    with tracing(path):
        restored(shot_of(setting, stages), setting.frames(47))
        stages.close()
    text = path.read_text()
    for name in ("encoder to the host", "generator to the card", "decoder to the card"):
        assert name in text
    turns.enter("encode_step")  # what was traced is closed


def check_frames_differ(setting: TritonSetting, stages: DeviceStages) -> None:
    """What was left out shows in a shot's frames."""
    frames = setting.frames(FRAMES)
    differ(restored(shot_of(setting, stages), frames), restored(setting.shot_on_host(), frames))
    stages.close()


def differ(ours: list[Frame], theirs: list[Frame]) -> None:
    assert len(ours) == len(theirs)
    pairs = [
        pair
        for a, b in zip(ours, theirs, strict=True)
        for pair in zip(a.planes, b.planes, strict=True)
    ]
    assert not all(np.array_equal(a, b) for a, b in pairs)
