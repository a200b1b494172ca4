"""Plans of the VAE from its graphs, opened and driven as a run does; see `tests.kernel_runs`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.engine_graphs import make_spec
from tests.kernel_runs import DEVICE
from tests.networks import loud_weights, normal
from tests.vae_graphs import CONFIG, SIZE, export_vae, stage_spec
from torch import Tensor

from vr_trt.engines import build_triton
from vr_trt.engines.build_triton import BUILDER, CODERS
from vr_trt.engines.cache import About, Canvas, Engine
from vr_trt.engines.static_stage import StaticStage
from vr_trt.engines.triton_stages import Shared, open_stage
from vr_trt.export.causal import Stream
from vr_trt.export.export_model import DTYPES, Precision
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.fp8_vae import Coder
from vr_trt.export.golden import relative_rms
from vr_trt.export.vae import IMAGE, VIDEO, Form
from vr_trt.kernels import conv_sizes, group_norm
from vr_trt.runtime import triton_session
from vr_trt.runtime.model import Model
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.vae_stream import DecodeStream, EncodeStream

LARGEST_RATIO = 1.2  # of our error to PyTorch's own in the same precision
PRECISION: Precision = "bf16"
DTYPE = DTYPES[PRECISION]
HEIGHT, WIDTH = SIZE
VERBS = ["encode", "decode"]


@pytest.fixture(autouse=True)
def large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes as long for a large block as for a small one."""
    monkeypatch.setattr(conv_sizes, "_INTERPRETED", {**conv_sizes._INTERPRETED, "BLOCK_M": 512})
    monkeypatch.setattr(group_norm, "_PIXELS", 512)


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for each stage, with its plan."""
    root = tmp_path_factory.mktemp("plans")
    graphs = export_vae(root / "graphs", PRECISION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_triton, "_configs_of", lambda model: (None, CONFIG))
        # What interprets does not compile ahead; on a GPU it would take a minute and is not used.
        patch.setattr(build_triton, "_kernels", lambda plan, stage, sm: {})
        for stage in CODERS:
            (root / stage).mkdir()
            graph = graphs / f"{stage}.onnx"
            BUILDER.build(stage_spec(graph, PRECISION), graph, root / stage / "plan", print)
    yield root


@pytest.fixture
def model(plans: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """As a run opens it, on the device that is tested."""
    opened = triton_session.open_device

    def open_and_run(path: Path, shared: Shared) -> StaticStage:
        """As a CUDA graph is captured: what lies in the states then is lost."""
        stage = open_stage(path, shared)
        stage.run()
        return stage

    monkeypatch.setattr(
        triton_session, "open_device", lambda paths, parts: opened(paths, DEVICE, parts)
    )
    monkeypatch.setattr(triton_session, "open_stage", open_and_run)
    about = About(
        source="tiny", profile="360p", canvas=Canvas(width=WIDTH, height=HEIGHT, latents=2, step=1)
    )
    stages = (*CODERS, "generator")  # the manifest of a model has one; it is not opened here
    engines = {
        stage: Engine(
            folder=plans / (stage if stage in CODERS else CODERS[0]),
            spec=make_spec(backend="triton", stage=stage, precision=PRECISION),
            about=about,
            files={},
        )
        for stage in stages
    }
    return Model.of_engines(engines)


def network(verb: str, form: Form, dtype: torch.dtype) -> Coder:
    """In fp32 with the weights as they are in `dtype`, or in `dtype`."""
    fold = fold_encoder if verb == "encode" else fold_decoder
    return fold(CONFIG, loud_weights(CONFIG), form, dtype).to(DEVICE)


def in_fp32(plain: Coder, form: Form, verb: str) -> Coder:
    wide = network(verb, form, torch.float32)
    wide.load_state_dict({name: x.float() for name, x in plain.state_dict().items()})
    return wide


def shot(verb: str, seed: int) -> list[Tensor]:
    """The chunks of a shot: its start, and two steps."""
    frames, sides, channels = (5, 4, 4), (HEIGHT, WIDTH), 3
    if verb == "decode":
        frames, sides, channels = (2, 1, 1), (HEIGHT // 8, WIDTH // 8), CONFIG.latent_channels
    chunks = [normal(1, channels, n, *sides, seed=seed + i) for i, n in enumerate(frames)]
    return [chunk.to(DTYPE).float() for chunk in chunks]


@torch.no_grad()
def streamed(coder: Coder, chunks: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """What each chunk becomes."""
    out, stream = list[Tensor](), Stream()
    for i, chunk in enumerate(chunks):
        stream = Stream(stream.next) if i else stream
        out.append(coder(chunk.to(DEVICE, dtype), stream).float().cpu())
    return out


def check(ours: Tensor, plain: Tensor, exact: Tensor) -> None:
    """The criterion of every stage in 16 bits."""
    assert 0 < relative_rms(ours, exact) <= LARGEST_RATIO * relative_rms(plain, exact)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_two_shots_of_a_run_equal_pytorch(model: Model, verb: str) -> None:
    """Start and steps, each by itself; the second shot starts its states anew."""
    plain = network(verb, VIDEO, DTYPE)
    wide = in_fp32(plain, VIDEO, verb)
    shots = [shot(verb, seed=3), shot(verb, seed=30)[:1]]
    for chunks in shots:
        stream = (EncodeStream if verb == "encode" else DecodeStream)(model, StatePool())
        ours = [torch.from_numpy(stream.push(x.numpy())) for x in chunks]
        given = streamed(plain, chunks, DTYPE), streamed(wide, chunks, torch.float32)
        for part, theirs, exact in zip(ours, *given, strict=True):
            check(part, theirs, exact)


@pytest.mark.parametrize("verb", VERBS)
def test_a_picture_of_a_run_equals_pytorch(model: Model, verb: str) -> None:
    plain = network(verb, IMAGE, DTYPE)
    (x, *_) = shot(verb, seed=5)
    x = x[:, :, :1]
    stream = (EncodeStream if verb == "encode" else DecodeStream)(model, StatePool())
    ours = torch.from_numpy(stream.image(x.numpy()))
    (theirs,) = streamed(plain, [x], DTYPE)
    check(ours, theirs, streamed(in_fp32(plain, IMAGE, verb), [x], torch.float32)[0])
