"""Which workers a run gets, and how one is opened on another machine."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fake_model import make_fake_model
from tests.media import make_video, read_frames

from vr_trt import Restorer, __version__
from vr_trt.engines.cards import CardUse
from vr_trt.engines.local_gpu import Gpu
from vr_trt.engines.profiles import find_profile
from vr_trt.errors import MemoryBudgetError, UsageError
from vr_trt.runtime import item_server, worker_group
from vr_trt.runtime.film_scan import FilmScan
from vr_trt.runtime.frames import Join
from vr_trt.runtime.input_identity import input_digest
from vr_trt.runtime.item_server import OpenItemWorker, make_crew
from vr_trt.runtime.item_work import About, ItemTask, SegmentMade
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.recipe import Recipe, output_spec
from vr_trt.runtime.run_options import RunOptions, parse_gpus
from vr_trt.runtime.serving import Networks, Wanted
from vr_trt.runtime.video_codecs import Encoding
from vr_trt.runtime.work_items import Planner, Rules
from vr_trt.runtime.worker_group import (
    WorkerGroup,
    check_workers_memory,
    kept_threads,
    open_group,
    share,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_fake_model(tmp_path_factory.mktemp("model")))


def recipe(model: str) -> Recipe:
    return Recipe(Wanted(model=model, profile=find_profile("360p")), 0, "none", threads=1)


def test_restore_takes_a_number_of_workers(tmp_path: Path, model: str) -> None:
    source = make_video(tmp_path / "in.mp4", frames=30, size=(64, 48))
    with Restorer(model=model, profile="360p", threads=1, color="none") as restorer:
        one = restorer.restore(source, tmp_path / "one.mp4")
        two = restorer.restore(source, tmp_path / "two.mp4", options=RunOptions(workers=2))
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    assert one.frames == two.frames == len(read_frames(two.output)) == 30
    assert one.settings == two.settings


@pytest.mark.parametrize("there", [False, True])
def test_on_another_machine_the_input_is_fetched_and_segments_are_sent(
    tmp_path: Path, model: str, there: bool
) -> None:
    source = make_video(tmp_path / "in.mp4", frames=9, size=(64, 48))
    info, cooking = probe(source), recipe(model)
    spec, _ = output_spec(
        cooking.plan(info, tmp_path / "o.mp4"), tmp_path / "o.mp4", Encoding(), False
    )
    opener = OpenItemWorker(
        wanted=cooking.wanted,
        seed=0,
        color="none",
        threads=1,
        info=info if there else replace(info, path=Path("/nowhere/in.mp4")),
        spec=spec,
        folder=Path("/nowhere"),
        digest=input_digest(source),
    )
    fetched = []

    def fetch(wanted: Path, target: Path) -> None:
        fetched.append(wanted)
        shutil.copy(source, target)

    folder = tmp_path / "there"
    folder.mkdir()
    worker = opener.elsewhere(folder, fetch)
    assert fetched == ([] if there else [Path("/nowhere/in.mp4")])
    told: list[object] = []
    worker.run(task(source), told.append)
    (made,) = [said for said in told if isinstance(said, SegmentMade)]
    assert made.data is not None and len(made.data) == made.segment.bytes
    assert not list(folder.glob("*.segment"))


def task(source: Path) -> ItemTask:
    """The whole of a short film."""
    planner = Planner(rules=Rules(profile=find_profile("360p"), step_latents=1))
    with Reader(source) as reader:
        scan = FilmScan(reader)
        while not scan.done:
            continue
        scan.close()
    for number in range(scan.known):
        planner.see(number, scan.starts_shot(number))
    planner.end()
    (item,) = planner.items()
    assert item.joins == (Join(0, 0),)
    return ItemTask(item=item, marks=scan.marks.part(item.first_read, item.stop))


def gpu(name: str) -> Gpu:
    return Gpu(name=name, sm=89, multiprocessors=128, memory=24 << 30, driver=13000)


@pytest.mark.parametrize(("names", "alike"), [(["A", "A"], True), (["A", "B"], False)])
def test_cards_of_different_kinds_do_not_share_a_shot(
    tmp_path: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    alike: bool,
) -> None:
    source = make_video(tmp_path / "in.mp4", frames=9, size=(64, 48))
    monkeypatch.setattr(item_server, "find_cards", lambda numbers: [gpu(names[n]) for n in numbers])
    cooking = recipe(model)
    plan = cooking.plan(probe(source), tmp_path / "out.mp4")
    spec, _ = output_spec(plan, tmp_path / "out.mp4", Encoding(), False)
    made = make_crew(cooking, plan, spec, WorkerGroup(size=2, threads=1, gpus=(0, 1)))
    assert made.alike is alike
    with pytest.raises(UsageError, match="a worker would run on magic; here it is"):
        made.check(About(step_latents=1, version=__version__, engines="magic"))
    with pytest.raises(UsageError, match="a worker has vr-trt 9"):
        made.check(About(step_latents=1, version="9", engines=next(iter(made.engines))))


def test_every_card_is_checked_before_work(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second card is too small for its engines."""
    source = make_video(tmp_path / "in.mp4", frames=9, size=(64, 48))
    monkeypatch.setattr(item_server, "find_cards", lambda numbers: [gpu("A"), gpu("small")])
    find = Networks.find

    def found(self: Networks, sizes: object, **choices: object) -> object:
        serving = find(self, sizes, **choices)  # type: ignore[arg-type]
        card = choices.get("gpu")
        small = isinstance(card, Gpu) and card.name == "small"
        return (
            replace(serving, card=CardUse(needed=9, usable=1, advice="wait")) if small else serving
        )

    monkeypatch.setattr(Networks, "find", found)
    cooking = recipe(model)
    plan = cooking.plan(probe(source), tmp_path / "out.mp4")
    spec, _ = output_spec(plan, tmp_path / "out.mp4", Encoding(), False)
    with pytest.raises(MemoryBudgetError, match="on the card"):
        make_crew(cooking, plan, spec, WorkerGroup(size=2, threads=1, gpus=(0, 1)))


def test_workers_are_refused_where_they_do_not_fit(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", frames=9, size=(64, 48))
    plan = recipe("nano").plan(probe(source), tmp_path / "out.mp4")
    assert plan.peak_bytes
    for room, message in ((3.5, "--workers 3 would fit"), (1.5, "only one would fit")):
        tight = replace(plan, available_bytes=int(room * plan.peak_bytes))
        with pytest.raises(MemoryBudgetError, match=message):
            check_workers_memory(tight, 4)
    check_workers_memory(replace(plan, available_bytes=4 * plan.peak_bytes), 4)


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [share(8, n) for n in (1, 3, 8, 20)] == [8, 2, 1, 1]
    monkeypatch.setattr(worker_group, "usable_cores", lambda: 8)
    for options, threads, wanted in (
        (RunOptions(workers=3), 0, (3, 2)),
        (RunOptions(workers=3), 5, (3, 5)),
        (RunOptions(gpus=(0, 2)), 0, (2, 4)),
        (RunOptions(), 0, (1, 8)),
    ):
        with open_group(options, threads) as group:
            assert (group.size, group.threads) == wanted
    assert kept_threads(tmp_path / "none.mp4") == 0


def test_cards_are_numbers() -> None:
    assert parse_gpus("") == () and parse_gpus("0, 2,11") == (0, 2, 11)
    for wrong in ("a", "0,", "-1", "0;1"):
        with pytest.raises(UsageError, match="numbers of cards"):
            parse_gpus(wrong)
