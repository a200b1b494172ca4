"""The loop on the real stages of the triton backend, beside the host that feeds them.

Run by test_triton_loop, see kernel_runs: in the interpreter on a device that checks the order of
what it is asked, or on a GPU, where that has never been executed.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.device_runs import YUV10, Setting, assert_equal, restored
from tests.engine_graphs import make_spec
from tests.kernel_runs import DEVICE
from tests.networks import loud_weights, normal
from tests.triton_runs import Synchronized
from tests.triton_stand_in import Loan, recorded_stages

from vr_trt.engines.cache import About, Canvas, Engine
from vr_trt.engines.profiles import Profile
from vr_trt.engines.rota import PARTS
from vr_trt.engines.triton_plan import DTYPES, TritonPlan, write_plan
from vr_trt.export.config import VaeConfig, generator_3b_style
from vr_trt.export.export_model import Precision
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.vae import VIDEO
from vr_trt.kernels import conv_sizes, group_norm
from vr_trt.runtime import triton_loop, triton_pixels, triton_session
from vr_trt.runtime.card_turns import CardTurns
from vr_trt.runtime.device_loop import device_stages
from vr_trt.runtime.device_stages import DeviceStages
from vr_trt.runtime.frames import Frame, PixelFormat
from vr_trt.runtime.host_stages import HostStages
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import Correction, PixelStages
from vr_trt.runtime.shot import Shot
from vr_trt.runtime.triton_pixels import open_way, pixel_work
from vr_trt.runtime.triton_session import TritonDevice

PRECISION: Precision = "bf16"
VAE = VaeConfig(channels=(8, 8, 8, 8), encoder_resnets=1, decoder_resnets=1, groups=4)
GENERATOR = generator_3b_style(
    width=32, heads=1, head_width=32, layers=2, text_width=6, shared_from=1
)
SHORT, LONG = 5, 9  # frames: one call of either coder and one window, or two of each


@dataclass(kw_only=True)
class RealSetting(Setting):
    """A film on plans of small networks, which lie in `folder`, a folder for each stage."""

    turns: Collection[str] = ()  # parts that take turns on the device

    @property
    def profile(self) -> Profile:
        return Profile(
            name="test", short_side=16, window=5, overlap=1,
            latents_per_step=1, precision=PRECISION, cut=False,
        )  # fmt: skip

    def write_plans(self) -> None:
        """The encoder's, the generator's and the decoder's, with random weights."""
        wide, high = self.canvas.padded_w, self.canvas.padded_h
        weights, dtype = loud_weights(VAE), DTYPES[PRECISION]
        for verb, fold in (("encode", fold_encoder), ("decode", fold_decoder)):
            state = fold(VAE, weights, VIDEO, dtype).state_dict()
            for call, frames, latents in (("start", 5, 2), ("step", 4, 1)):
                sizes = (1, 3, frames, high, wide)
                if verb == "decode":
                    sizes = (1, VAE.latent_channels, latents, high // 8, wide // 8)
                self._write(f"{verb}_{call}", VAE, sizes, state)
        text = normal(3, GENERATOR.text_width)
        network = fold_generator(GENERATOR, loud_weights(GENERATOR), text, dtype=dtype)
        sizes = (1, 16, self.profile.window_latents, high // 8, wide // 8)
        self._write("generator", GENERATOR, sizes, network.state_dict())

    def _write(self, stage: str, config: object, sizes: tuple[int, ...], state: object) -> None:
        (self.folder / stage).mkdir(parents=True)
        plan = TritonPlan(
            stage=stage, config=config, precision=PRECISION, sizes=sizes, state=state  # type: ignore[arg-type]
        )  # fmt: skip
        write_plan(plan, self.folder / stage / "plan")

    def model(self, turns: Collection[str] = ()) -> Model:
        canvas = Canvas(
            width=self.canvas.padded_w, height=self.canvas.padded_h,
            latents=self.profile.window_latents, step=1,
        )  # fmt: skip
        about = About(source="tiny", profile="test", canvas=canvas)
        spec = partial(make_spec, backend="triton", precision=PRECISION)
        stages = [folder.name for folder in self.folder.iterdir()]
        pictures = {f"{v}_image": f"{v}_start" for v in ("encode", "decode")}  # are not opened
        engines = {
            stage: Engine(
                folder=self.folder / pictures.get(stage, stage), spec=spec(stage=stage),
                about=about, files={},
            )
            for stage in (*stages, *pictures)
        }  # fmt: skip
        return Model.of_engines(engines, turns=turns)

    def stages(self) -> DeviceStages:
        return device_stages(self.model(self.turns), self.way, self.profile, seed=7)

    def host_stages(self) -> HostStages:
        way = self.way
        sessions = open_way(way, DEVICE)
        pixels = PixelStages(way.source, way.target, way.canvas, way.correction, sessions=sessions)
        return HostStages(self.model(), pixels, self.profile, 7)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks for which the interpreter takes no longer; sessions on the device that is tested."""
    monkeypatch.setattr(conv_sizes, "_INTERPRETED", {**conv_sizes._INTERPRETED, "BLOCK_M": 512})
    monkeypatch.setattr(group_norm, "_PIXELS", 512)
    opened = triton_session.open_device
    monkeypatch.setattr(
        triton_session, "open_device", lambda plans, parts: opened(plans, DEVICE, parts)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans")
    RealSetting(folder=path).write_plans()
    return path


def on_recorded_device(setting: RealSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's device is the setting's from now on, and PyTorch's memory is lent to it."""
    stream, loan = setting.device.stream(), Loan(setting.device)
    opened = triton_session.open_device

    def open_device(plans: Iterable[Path], parts: Collection[str]) -> TritonDevice:
        found = opened(plans, parts=parts)
        if not parts:
            return found
        assert found.shared.turns is not None
        address = loan.address(found.shared.turns)
        turns = CardTurns(setting.device, stream, address, found.shared.rota)
        return Synchronized(found.shared, turns)

    monkeypatch.setattr(triton_session, "open_device", open_device)
    on_cpu = lambda frames, bits, **_: pixel_work(frames, bits, device="cpu")
    monkeypatch.setattr(triton_pixels, "pixel_work", on_cpu)
    monkeypatch.setattr(triton_loop, "cuda_device", lambda: setting.device)
    monkeypatch.setattr(triton_loop, "LoopedStage", recorded_stages(loan))
    monkeypatch.setattr(triton_loop.TritonLoop, "stream", property(lambda loop: stream))


CHOICES: list[tuple[int, dict[str, Any]]] = [
    (LONG, {"correction": "wavelet"}),
    (LONG, {"correction": "wavelet", "turns": PARTS}),
    (SHORT, {"correction": "lab", "pixel": YUV10}),
]
if DEVICE == "cuda":
    CHOICES += [(LONG, {"correction": "adain"}), (120, {"correction": "none"})]
    CHOICES += [(120, {"turns": ("encoder", "decoder")}), (120, {"turns": PARTS})]


@pytest.mark.parametrize(("count", "choices"), CHOICES, ids=str)
def test_frames_are_those_that_the_host_gets(
    folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, choices: dict[str, Any]
) -> None:
    film = RealSetting(folder=folder, **choices)
    if DEVICE == "cpu":
        on_recorded_device(film, monkeypatch)
    frames = film.frames(count)
    stages = film.stages()
    with film.device.loop():
        ours = restored(Shot(stages.begin(film.host_stages()), film.profile), frames)
    stages.close()
    assert len(ours) == count and not (ours[0].planes[0] == ours[-1].planes[0]).all()
    assert_equal(ours, host_frames(folder, count, film.correction, film.pixel))


@cache
def host_frames(
    folder: Path, count: int, correction: Correction, pixel: PixelFormat
) -> list[Frame]:
    film = RealSetting(folder=folder, correction=correction, pixel=pixel)
    return restored(film.shot_on_host(), film.frames(count))


if DEVICE == "cuda":

    @pytest.mark.parametrize("correction", ["wavelet", "none"])
    def test_every_run_gives_the_same_bits(folder: Path, correction: str) -> None:
        """What a race would spoil now and then; a shot begins with nothing of the one before."""
        film = RealSetting(folder=folder, correction=correction)  # type: ignore[arg-type]
        frames, stages = film.frames(120), film.stages()
        runs = [
            restored(Shot(stages.begin(film.host_stages()), film.profile), frames) for _ in range(5)
        ]
        stages.close()
        for run in runs[1:]:
            assert_equal(run, runs[0])
        torch.cuda.synchronize()
