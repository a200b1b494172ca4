"""Whole runs with every stage on a recorded device: files, traces, plans, and where it cannot be."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray
from tests import tensorrt_stand_in
from tests.codec_stand_ins import (
    LentFrame,
    Nvdec,
    NvdecContext,
    Nvenc,
    NvencContext,
    lossless_stream,
)
from tests.fake_model import make_fake_model
from tests.media import make_video, read_frames
from tests.recorded_device import RecordedDevice
from tests.runtime.test_serving import add_engines

from vr_trt import Restorer
from vr_trt.engines import card_budget
from vr_trt.engines.cache import Canvas
from vr_trt.engines.selection import Machine
from vr_trt.errors import MemoryBudgetError, ModelError
from vr_trt.runtime import (
    card_trials,
    device_encoding,
    device_loop,
    device_memory,
    encode,
    gpu_codecs,
    mux,
    reader,
    recipe,
    restorer,
    serving,
    tensorrt_session,
)
from vr_trt.runtime.encode import OutputSpec
from vr_trt.runtime.restorer import Report
from vr_trt.runtime.run_options import RunOptions
from vr_trt.runtime.video_codecs import NVENC, Encoding

FILM = (64, 48)  # at a third of 360p 160x120, padded to 160x128
EXACT = Canvas(width=160, height=128, latents=6, step=1)
NETWORKS = {"H": 128, "W": 160, "H2": 64, "W2": 80, "h": 16, "w": 20}
_OUT = {"F": 1, "Wo": 160, "Ho": 120, "Wp": 160, "Hp": 128}
PIXELS = {
    "to_model": {**_OUT, "W": 64, "H": 48, "w": 32, "h": 24},
    "to_video": {**_OUT, "w": 80, "h": 60},
}

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordedDevice:
    """An invented card with engines of the fake model, under the name of the 3B."""
    device = RecordedDevice()
    monkeypatch.setenv("VR_TRT_CACHE", str(tmp_path / "cache"))
    folder = make_fake_model(tmp_path / "model")
    add_engines(folder, EXACT, backend="tensorrt-rtx", targets=(89,), precision="fp32")
    stand_in = tensorrt_stand_in.library(device, NETWORKS, pixels=PIXELS)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", stand_in)
    monkeypatch.setattr(tensorrt_session, "CudaDevice", lambda: device)
    here = frozenset({"onnxruntime", "tensorrt-rtx"})
    card = Machine(sm=89, memory=32 << 30, installed=here, runs=serving.SESSIONS)
    monkeypatch.setattr(serving, "this_machine", lambda: card)
    monkeypatch.setattr(device_loop, "present_gpu", lambda: SimpleNamespace(sm=89))
    monkeypatch.setattr(device_loop, "pixel_spec", lambda graph, *_: graph)
    monkeypatch.setattr(
        device_loop, "pixel_engine", lambda graph, spec: SimpleNamespace(plan=graph)
    )
    return device


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return make_video(tmp_path / "in.mkv", frames=30, size=FILM)


def on_device(film: Path, options: RunOptions | None = None) -> tuple[Report, NDArray[np.uint8]]:
    return _run("seedvr2-3b", film, film.with_name("gpu.mkv"), "auto", options)


def on_host(film: Path) -> tuple[Report, NDArray[np.uint8]]:
    model = film.with_name("model")
    return _run(str(model), film, film.with_name("cpu.mkv"), "onnxruntime", None)


def _run(
    model: str, film: Path, out: Path, backend: str, options: RunOptions | None
) -> tuple[Report, NDArray[np.uint8]]:
    with Restorer(model=model, profile="360p", backend=backend) as restorer:
        report = restorer.restore(film, out, options=options)
    return report, np.stack([frame.to_ndarray() for frame in read_frames(out)])


def test_a_file_is_that_of_the_cpu(device: RecordedDevice, film: Path) -> None:
    report, ours = on_device(film)
    assert not [line for line in report.warnings if "run on the CPU" in line]
    assert device.asked.count("launch") > 100  # to_model, to_video and the networks, as graphs
    _, theirs = on_host(film)
    assert len(theirs) == 30 and np.array_equal(theirs, ours)


class Codecs:
    """A card's codecs, and the way of frames that were asked of them."""

    def __init__(self, device: RecordedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device, self.holds = device, 7
        self.nvdec = Nvdec(device, FILM, 8, 24)
        self.nvenc: list[Nvenc] = []
        self.on_card: list[bool] = []
        lent = SimpleNamespace(from_dlpack=LentFrame)
        monkeypatch.setattr(device_encoding, "VideoFrame", lent)
        monkeypatch.setattr(device_encoding, "CudaContext", lambda **choices: choices)
        monkeypatch.setattr(restorer, "choose_decoder", lambda *_: (True, ""))
        nvenc = lambda wanted, codec, pixel: (NVENC[codec.name], "")
        monkeypatch.setattr(recipe, "choose_encoder", nvenc)
        monkeypatch.setattr(reader, "nvdec_context", self.decoder)
        monkeypatch.setattr(encode, "open_encoder", self.encoder)
        monkeypatch.setattr(mux, "add_video", lossless_stream)
        monkeypatch.setattr(card_trials, "CudaDevice", lambda: device)

    def decoder(self, stream: Any, on_card: bool) -> Any:
        self.on_card.append(on_card)
        software = gpu_codecs._context("h264", stream.codec_context.extradata, None)
        return NvdecContext(software, self.nvdec if on_card else None)

    def encoder(self, target: OutputSpec) -> Any:
        assert target.coder.encoder == "h264_nvenc"
        self.nvenc.append(Nvenc(self.device, self.holds))
        return NvencContext(self.nvenc[-1])

    def close(self) -> None:
        for nvenc in self.nvenc:
            nvenc.close()
        self.nvdec.close()


@pytest.fixture
def codecs(device: RecordedDevice, monkeypatch: pytest.MonkeyPatch) -> Codecs:
    return Codecs(device, monkeypatch)


def lossless(film: Path, codec: str, model: str, backend: str) -> tuple[Report, NDArray[np.uint8]]:
    out = film.with_name(f"{codec}.mkv")
    with Restorer(model=model, profile="360p", backend=backend) as restorer:
        report = restorer.restore(film, out, encoding=Encoding(codec=codec))
    return report, np.stack([frame.to_ndarray() for frame in read_frames(out)])


def test_frames_stay_on_the_card_from_file_to_file(
    device: RecordedDevice, codecs: Codecs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_video(tmp_path / "in.mp4", frames=30, size=FILM)
    with Restorer(model="seedvr2-3b", profile="360p") as restorer_:
        plan = restorer_.plan(film, film.with_name("h264.mkv"))
    assert plan.codecs == (
        "decoded by NVDEC; its frames stay on the card",
        "encoded by h264_nvenc, from the card's memory",
    )
    assert plan.on_card.holds == codecs.holds
    device.asked.clear()
    report, ours = lossless(film, "h264", "seedvr2-3b", "auto")
    assert not [line for line in report.warnings if "host" in line or "CPU" in line]
    assert codecs.on_card[-1] and len(codecs.nvenc) == 3  # two trials, and one segment
    assert "to encoder" not in device.asked and device.asked.count("to host") == 0
    codecs.close()
    assert device.leaks() == ["1 x memory", "1 x stream"]
    monkeypatch.undo()
    _, theirs = lossless(film, "ffv1", str(film.with_name("model")), "onnxruntime")
    assert len(theirs) == 30 and np.array_equal(theirs, ours)


@pytest.mark.parametrize("broken", ["decoder", "encoder", "kernels"])
def test_what_does_not_work_on_the_card_crosses_the_host(
    device: RecordedDevice,
    codecs: Codecs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    """Tried before the run, and said in one line; memory and streams come back."""
    film = make_video(tmp_path / "in.mp4", frames=8, size=FILM)
    if broken == "decoder":
        refuse = ValueError("no such surface")
        monkeypatch.setattr(codecs.nvdec, "decode", Mock(side_effect=refuse))
    elif broken == "encoder":
        lent = SimpleNamespace(from_dlpack=Mock(side_effect=ValueError("no memory\nhere")))
        monkeypatch.setattr(device_encoding, "VideoFrame", lent)
    else:
        monkeypatch.setattr(device, "cells", lambda *_: None)  # the sums are what lay there
    with Restorer(model="seedvr2-3b", profile="360p") as restorer_:
        plan = restorer_.plan(film, film.with_name("h264.mkv"))
    lines = {
        "decoder": "NVDEC's frames cross the host: NVDEC into the card's memory does not work here "
        "(no such surface)",
        "encoder": "NVENC's frames cross the host: h264_nvenc from the card's memory does not work "
        "here (no memory here)",
        "kernels": "NVDEC's frames cross the host: NVDEC into the card's memory does not work here "
        "(its frames differ from those on the host)",
    }
    assert plan.codecs[2:] == (lines[broken],)
    assert plan.on_card.decoded == (broken == "encoder")
    assert (plan.on_card.holds is None) == (broken == "encoder")
    codecs.close()
    assert device.leaks() == []


def test_a_card_without_room_for_their_frames_does_without(
    device: RecordedDevice, codecs: Codecs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_video(tmp_path / "in.mp4", frames=8, size=FILM)
    out = film.with_name("h264.mkv")
    with Restorer(model="seedvr2-3b", profile="360p") as restorer_:
        fits = restorer_.plan(film, out)
        codecs.on_card.clear()
        monkeypatch.setattr(device_memory, "QUEUE_FRAMES", 1 << 20)
        plan = restorer_.plan(film, out)
    assert fits.on_card.holds and fits.rings and plan.rings and plan.serving.card
    assert plan.rings.device < fits.rings.device and plan.serving.card.fits
    assert plan.codecs == (
        "decoded by NVDEC",
        "encoded by h264_nvenc",
        "frames cross the host: the card has no room for more of them",
    )
    codecs.close()


def test_a_trace_has_a_row_for_every_stream(device: RecordedDevice, film: Path) -> None:
    trace = film.with_name("trace.json")
    report, _ = on_device(film, RunOptions(trace=trace))
    events = json.loads(trace.read_text())
    rows = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found: dict[str, set[str]] = {}
    for event in events:
        if event["ph"] == "X":
            assert event["dur"] >= 0
            found.setdefault(rows[event["tid"]], set()).add(event["name"])
    spans = {row: names for row, names in found.items() if row.startswith("device: ")}
    assert spans == {
        "device: upload": {"upload", "upload noise"},
        "device: pre": {"to_model"},
        "device: main": {"encode_start", "encode_step", "generator", "blend"}
        | {"decode_start", "decode_step"},
        "device: post": {"to_model", "to_video"},
        "device: download": {"download"},
    }
    assert report.stages["to_video"].calls == 30
    assert report.stages["decode_step"].seconds > 0


def test_pixels_without_an_engine_are_the_cpu_s(
    device: RecordedDevice, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(graph: Path, spec: object) -> None:
        raise ModelError("no kernel for it")

    monkeypatch.setattr(device_loop, "pixel_engine", refuse)
    report, ours = on_device(film)
    line = "the pixels' stages run on the CPU, which the GPU waits for: no kernel for it"
    assert [text for text in report.warnings if "run on the CPU" in text] == [line]
    assert np.array_equal(on_host(film)[1], ours)
    assert len(device.streams) == 1  # of the networks: the rest was given back


def test_everything_is_given_back_after_each_run(device: RecordedDevice, film: Path) -> None:
    with Restorer(model="seedvr2-3b", profile="360p") as restorer:
        left = []
        for _ in range(2):
            restorer.restore(film, film.with_name("gpu.mkv"), options=RunOptions(overwrite=True))
            left.append(device.leaks())
    assert left == [["1 x memory", "1 x stream"]] * 2


def test_a_plan_counts_the_rings(
    device: RecordedDevice, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Restorer(model="seedvr2-3b", profile="360p") as restorer:
        plan = restorer.plan(film)
    assert plan.rings is not None and plan.serving.card is not None
    bare = plan.serving.card.needed - plan.rings.device
    monkeypatch.setattr(card_budget, "CONTEXT_BYTES", card_budget.CONTEXT_BYTES + (40 << 30))
    with Restorer(model="seedvr2-3b", profile="360p") as restorer:
        assert restorer.plan(film).serving.card.needed == bare + plan.rings.device + (40 << 30)  # type: ignore[union-attr]
        with pytest.raises(MemoryBudgetError, match="on the card"):
            restorer.restore(film)
