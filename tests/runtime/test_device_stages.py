"""A shot on a device that checks the order of all it is asked: frames, memory, what is missed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.device_runs import YUV10, Setting, assert_equal, check_shots, leave_out, restored
from tests.recorded_device import RaceError, RecordedDevice

from vr_trt.errors import DamagedInputError, InterruptedRun, MemoryBudgetError
from vr_trt.runtime.device_memory import LoopSizes
from vr_trt.runtime.device_stages import DeviceStages
from vr_trt.runtime.entry import entry_at
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.shot import Shot

CHOICES: list[dict[str, Any]] = [
    {},
    {"cut": True},
    {"step": 2, "overlap": 2},
    {"pixel": YUV10, "correction": "none"},
    {"cut": True, "step": 2, "overlap": 0, "correction": "adain"},
]


# What stays when a loop is closed: the stream of the networks, and their activations there.
SESSIONS_OWN = ["1 x memory", "1 x stream"]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_frames_are_those_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choices: dict[str, Any]
) -> None:
    setting = Setting(folder=tmp_path / "model", **choices)
    stages = setting.on_device(monkeypatch)
    with setting.device.loop():
        check_shots(setting, stages, assert_equal)
    stages.close()
    assert setting.device.leaks() == SESSIONS_OWN


def test_frames_of_an_entry_into_a_shot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(folder=tmp_path / "model")
    entry = entry_at(401, setting.profile, 1)
    assert entry.first_read > 0
    frames = setting.frames(420)[entry.first_read :]
    stages = setting.on_device(monkeypatch)
    with setting.device.loop():
        shot = Shot(stages.begin(setting.host_stages()), setting.profile, entry)
        ours = restored(shot, frames)
    assert_equal(ours, restored(setting.shot_on_host(entry), frames))
    stages.close()


def test_a_shot_of_one_frame_goes_the_host_s_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(folder=tmp_path / "model")
    stages, frames = setting.on_device(monkeypatch), setting.frames(1)
    for _ in range(2 * stages._sizes.sources):  # its place among the source's frames comes free
        shot = Shot(stages.begin(setting.host_stages()), setting.profile)
        ours = restored(shot, frames)
    assert_equal(ours, restored(setting.shot_on_host(), frames))
    stages.close()


def test_the_host_waits_only_for_slots_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(folder=tmp_path / "model")
    stages = setting.on_device(monkeypatch)
    setting.device.asked.clear()
    with setting.device.loop():
        shot = Shot(stages.begin(setting.host_stages()), setting.profile)
        restored(shot, setting.frames(47))
    asked = setting.device.asked
    # Before a slot is filled, for each frame in (repeats too) and window; and for each frame out.
    uploads, downloads = asked.count("upload"), asked.count("download")
    assert downloads == 47 and asked.count("wait_for") == uploads + downloads
    assert asked.count("execute") == asked.count("launch")  # every stage is a captured graph
    stages.close()


def without_other_order(monkeypatch: pytest.MonkeyPatch, ring: str) -> None:
    """Room for a whole shot in the other rings, where some waits would do the work of others."""
    for name in {"sources", "incoming", "outgoing"} - {ring.removeprefix("_")}:
        monkeypatch.setattr(LoopSizes, name, 200)


# Every wait of one stream for another: the ring, and which of its slots' events it is for.
WAITS = [
    (ring, event)
    for ring in ("_sources", "_x", "_restored", "_outputs", "_noises")
    for event in ("_filled", "_read")
]


def events_of(stages: DeviceStages, ring: str, event: str) -> set[int]:
    owner = stages._generator if ring == "_noises" else stages._pixels
    return {getattr(slot, event) for slot in getattr(owner, ring)._slots}


def check_left_out(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, ring: str, event: str, left_out: str
) -> None:
    """A wait for an event of a ring, or its record, is missed when it is left out."""
    without_other_order(monkeypatch, ring)
    stages = setting.on_device(monkeypatch)
    leave_out(monkeypatch, setting.device, left_out, events_of(stages, ring, event))
    shot = Shot(stages.begin(setting.host_stages()), setting.profile)
    with pytest.raises(RaceError, match="may still use"):
        restored(shot, setting.frames(120))


@pytest.mark.parametrize(("ring", "event"), WAITS)
@pytest.mark.parametrize("left_out", ["wait", "record"])
def test_a_wait_that_is_left_out_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ring: str, event: str, left_out: str
) -> None:
    check_left_out(Setting(folder=tmp_path / "model"), monkeypatch, ring, event, left_out)


@pytest.mark.parametrize("event", ["_filled", "_read"])
def test_an_event_that_is_recorded_too_early_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    """On a stream that has nothing to do with it."""
    setting = Setting(folder=tmp_path / "model")
    stages, device = setting.on_device(monkeypatch), setting.device
    events, record = events_of(stages, "_x", event), device.record
    other = device.stream()
    monkeypatch.setattr(device, "record", lambda e, s: record(e, other if e in events else s))
    shot = Shot(stages.begin(setting.host_stages()), setting.profile)
    with pytest.raises(RaceError, match="may still use"):
        restored(shot, setting.frames(47))


@pytest.mark.parametrize("ring", ["_incoming", "_outgoing", "_drawn"])
def test_a_host_that_does_not_wait_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ring: str
) -> None:
    without_other_order(monkeypatch, ring)
    setting = Setting(folder=tmp_path / "model")
    stages = setting.on_device(monkeypatch)
    owner: Any = stages._generator if ring == "_drawn" else stages._pixels
    slots = getattr(owner, ring)
    for slot in getattr(slots, "_slots", slots):
        monkeypatch.setattr(slot, "wait", lambda: None)
    shot = Shot(stages.begin(setting.host_stages()), setting.profile)
    with pytest.raises(RaceError, match="the host uses memory"):
        restored(shot, setting.frames(120))


@pytest.mark.parametrize("ring", ["_sources", "_x", "_restored", "_outputs"])
def test_a_slot_that_is_not_given_back_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ring: str
) -> None:
    setting = Setting(folder=tmp_path / "model")
    stages = setting.on_device(monkeypatch)
    slot = getattr(stages._pixels, ring)._slots[0]
    monkeypatch.setattr(slot, "give_back", lambda stream: None)
    shot = Shot(stages.begin(setting.host_stages()), setting.profile)
    with pytest.raises(RuntimeError, match="are in use: report this"):
        restored(shot, setting.frames(120))
    stages.close()


def test_a_slot_that_is_given_back_twice_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(folder=tmp_path / "model")
    stages = setting.on_device(monkeypatch)
    slot = stages.begin(setting.host_stages()).take(setting.frames(1)[0]).slot
    slot.give_back(stages._lanes.post)
    with pytest.raises(RuntimeError, match="given back twice"):
        slot.give_back(stages._lanes.post)
    stages.close()


FORBIDDEN: dict[str, Callable[[DeviceStages], object]] = {
    "synchronize": lambda stages: stages._lanes.device.synchronize(stages._lanes.main),
    "allocate": lambda stages: stages._lanes.device.allocate(16, stages._lanes.main),
    "event": lambda stages: stages._lanes.device.event(),
    "stream": lambda stages: stages._lanes.device.stream(),
    "page_locked": lambda stages: stages._lanes.device.page_locked(16),
    "begin_capture": lambda stages: stages._lanes.device.begin_capture(stages._lanes.main),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_has_no_place_in_the_loop_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    setting = Setting(folder=tmp_path / "model")
    stages = setting.on_device(monkeypatch)
    take = stages._pixels.take

    def careless(frame: Frame) -> Any:
        FORBIDDEN[name](stages)
        return take(frame)

    monkeypatch.setattr(stages._pixels, "take", careless)
    shot = Shot(stages.begin(setting.host_stages()), setting.profile)
    with pytest.raises(AssertionError, match=f"{name} within the loop"), setting.device.loop():
        restored(shot, setting.frames(5))
    stages.close()


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ("destroy_event", "event"),
        ("destroy_graph", "graph"),
        ("unlock", "page-locked memory"),
        ("free", "memory"),
        ("destroy_stream", "stream"),
    ],
)
def test_what_is_not_given_back_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, left: str
) -> None:
    setting = Setting(folder=tmp_path / "model")
    stages = setting.on_device(monkeypatch)
    monkeypatch.setattr(setting.device, asked, lambda *_: None)
    stages.close()
    assert any(
        line.endswith(f" x {left}") for line in set(setting.device.leaks()) - {*SESSIONS_OWN}
    )


def test_memory_is_as_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rings take what the law says, to the byte."""
    for choices in CHOICES:
        setting = Setting(folder=tmp_path / str(CHOICES.index(choices)), **choices)
        stages = setting.on_device(monkeypatch)
        pixels, sizes, memory = stages._pixels, stages._sizes, setting.device.memory
        rings = {
            "source frames": [pixels._sources],
            "x": [pixels._x, pixels._restored],
            "output frames": [pixels._outputs],
            "noise": [stages._generator._noises],
        }
        taken = {
            name: sum(len(memory[slot.tensor.address]) for ring in rings_ for slot in ring._slots)
            for name, rings_ in rings.items()
        }
        taken["latents"] = sum(len(memory[place.address]) for place in stages.latents._free)
        assert taken == sizes.device_rings()
        locked = sum(len(x.memory) for x in setting.device.locked.values())
        assert locked == sum(sizes.host_rings().values())
        stages.close()


def test_too_little_room_gives_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(folder=tmp_path / "model", device=RecordedDevice(room=60_000))
    with pytest.raises(MemoryBudgetError, match="smaller profile"):
        setting.on_device(monkeypatch)
    assert set(setting.device.leaks()) <= {*SESSIONS_OWN}


def given_up(setting: Setting, stages: DeviceStages, count: int) -> None:
    """A shot of which so many frames are pushed, and no more."""
    shot = Shot(stages.begin(setting.host_stages()), setting.profile)
    for frame in setting.frames(count, seed=1):
        list(shot.push(frame))


@pytest.mark.parametrize("count", [17, 38, 59])
def test_a_shot_after_one_that_was_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """As workers do when an item ends within a shot; what waits for nobody is found."""
    setting = Setting(folder=tmp_path / "model")
    stages, frames = setting.on_device(monkeypatch), setting.frames(47)
    with setting.device.loop():
        given_up(setting, stages, count)
        shot = Shot(stages.begin(setting.host_stages()), setting.profile)
        assert_equal(restored(shot, frames), restored(setting.shot_on_host(), frames))
    monkeypatch.setattr(stages._lanes, "meet", lambda: None)
    given_up(setting, stages, count)
    shot = Shot(stages.begin(setting.host_stages()), setting.profile)
    with pytest.raises(RaceError, match="may still use"):
        restored(shot, frames)


def test_refusals_and_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(folder=tmp_path / "model")
    stages = setting.on_device(monkeypatch).begin(setting.host_stages())
    other = Setting(folder=tmp_path / "model", size=(20, 14))
    with pytest.raises(DamagedInputError, match="changes from 22x14 to 20x14"):
        stages.take(other.frames(1)[0])
    stages.cancel()
    with pytest.raises(InterruptedRun):
        stages.take(setting.frames(1)[0])
    stages.close()
