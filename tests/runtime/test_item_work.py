"""Items by themselves, with the network that ships: stretches of a shot are the shot, bit for bit."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vr_trt.bench.cut_clips import scene
from vr_trt.engines.profiles import Profile
from vr_trt.errors import DamagedInputError
from vr_trt.runtime import item_work, work_items
from vr_trt.runtime.cut_list import Cuts
from vr_trt.runtime.film_scan import FilmScan
from vr_trt.runtime.film_source import FilmSource, Range
from vr_trt.runtime.frames import Frame, Join, VideoInfo
from vr_trt.runtime.item_work import ItemTask, ItemWorker, Opened, SegmentMade
from vr_trt.runtime.journal import segment_name
from vr_trt.runtime.packet_file import read_packets
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.recipe import Recipe, output_spec
from vr_trt.runtime.serving import Wanted
from vr_trt.runtime.video_codecs import Encoding
from vr_trt.runtime.work_items import Item, Planner, Rules

SIDE, FRAMES = 16, 500


def profile() -> Profile:
    return Profile(
        name="test",
        short_side=SIDE,
        window=21,
        overlap=2,
        latents_per_step=1,
        cut=False,
        precision="fp32",
    )


def film(folder: Path) -> VideoInfo:
    """A shot of 500 frames, with a key frame every 25."""
    path = folder / "in.mkv"
    world = scene(np.random.default_rng(3)).round().astype(np.uint8)
    at = np.arange(SIDE)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width = video.height = SIDE
        video.pix_fmt, video.codec_context.gop_size = "yuv420p", 25
        for i in range(FRAMES):
            view = np.ascontiguousarray(world[40 : 40 + SIDE][:, (2 * i + at) % world.shape[1]])
            frame = av.VideoFrame.from_ndarray(np.stack([view] * 3, -1), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return probe(path)


def scanned(info: VideoInfo) -> FilmScan:
    with Reader(info.path, info) as reader:
        scan = FilmScan(FilmSource(reader, info, Range(), Cuts("none")))
        while not scan.done:
            threading.Event().wait(0.01)
        scan.close()
    return scan


def items(scan: FilmScan) -> list[Item]:
    planner = Planner(rules=Rules(profile=profile(), step_latents=1))
    for number in range(scan.known):
        planner.see(number, scan.starts_shot(number))
    planner.end()
    return planner.items()


def worker(info: VideoInfo, folder: Path) -> ItemWorker:
    """nano on one thread, into segments in `folder`."""
    recipe = Recipe(Wanted(model="nano", profile=profile()), 0, "none", threads=1)
    path = folder / "out.mp4"
    plan = recipe.plan(info, path)
    spec, _ = output_spec(plan, path, Encoding(), overwrite=False)
    opened = Opened(make_work=lambda: recipe.work(plan, spec), engines=plan.serving.line)
    return ItemWorker(opened, info, spec, folder)


def done(worker: ItemWorker, scan: FilmScan, item: Item) -> list[SegmentMade]:
    """The item's segments."""
    told: list[object] = []
    marks = scan.marks.part(item.first_read, item.stop)
    worker.run(ItemTask(item=item, marks=marks), told.append)
    return [said for said in told if isinstance(said, SegmentMade)]


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> VideoInfo:
    return film(tmp_path_factory.mktemp("film"))


@pytest.fixture(scope="module")
def scan(info: VideoInfo) -> FilmScan:
    return scanned(info)


def test_a_stretch_of_a_shot_is_bit_for_bit_the_shot(
    info: VideoInfo, scan: FilmScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The VAE is warmed up; segments, and the frames that are compared, are the whole shot's."""
    (one, two) = (tmp_path / name for name in ("whole", "stretches"))
    one.mkdir()
    two.mkdir()
    (whole,) = items(scan)
    expected = done(worker(info, one), scan, whole)
    assert [made.segment.first for made in expected] == [0, 121, 241, 361, 481]
    monkeypatch.setattr(work_items, "STRETCH_FRAMES", 360)
    monkeypatch.setattr(work_items, "REST_FRAMES", 100)
    _, stretch = items(scan)
    assert (stretch.first, stretch.stop) == (361, FRAMES) and stretch.entry.encoded > 0
    made = done(worker(info, two), scan, stretch)
    assert [one.segment for one in made] == [one.segment for one in expected[3:]]
    assert made[0].head == expected[2].segment.tail
    for segment in (361, 481):
        name = segment_name(segment)
        assert list(read_packets(two / name)) == list(read_packets(one / name))


def test_a_stretch_that_ends_within_the_shot_looks_ahead(
    info: VideoInfo, scan: FilmScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no further: what its last window needs, not the rest of the shot."""
    monkeypatch.setattr(work_items, "STRETCH_FRAMES", 120)
    monkeypatch.setattr(work_items, "REST_FRAMES", 100)
    first, second, *_ = items(scan)
    assert (first.end, second.first) == (121, 121) and not first.ends_shot and first.stop < 160
    made = done(worker(info, tmp_path), scan, first)
    (after,) = (m for m in done(worker(info, tmp_path), scan, second) if m.segment.first == 121)
    assert after.head == made[-1].segment.tail
    assert made[-1].segment.following == Join(121, 0)


def test_a_film_that_reads_otherwise_than_it_was_scanned_is_refused(
    info: VideoInfo, scan: FilmScan, tmp_path: Path
) -> None:
    (whole,) = items(scan)
    checks = scan.marks.checks[:]
    checks[7] ^= 1
    marks = replace(scan.marks, checks=checks)
    with pytest.raises(DamagedInputError, match="not decoded alike every time"):
        worker(info, tmp_path).run(ItemTask(item=whole, marks=marks), lambda said: None)


def test_reading_begins_near_the_item(
    info: VideoInfo, scan: FilmScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a key frame; from the film's start where that does not give the same frames."""
    starts: list[int | None] = []

    class Watched(Reader):
        def __init__(self, path: Path, info: VideoInfo, start: int | None = None) -> None:
            starts.append(start)
            super().__init__(path, info, start)
            if start is not None and broken:
                self.__class__ = Other

    class Other(Watched):
        def __iter__(self) -> Iterator[Frame]:
            return (replace(frame, duration=frame.duration + 1) for frame in super().__iter__())

    monkeypatch.setattr(item_work, "Reader", Watched)
    monkeypatch.setattr(work_items, "STRETCH_FRAMES", 360)
    monkeypatch.setattr(work_items, "REST_FRAMES", 100)
    _, stretch = items(scan)
    short = replace(stretch, joins=stretch.joins[:1], end=481, following=Join(481, 0))
    for broken in (False, True):  # noqa: B007  the reader looks at it
        assert len(done(worker(info, tmp_path), scan, short)) == 1
    start = scan.marks.times[stretch.first_read]
    assert starts == [start, start, None]
