"""Plans of the triton backend from the graph that ships, and what is refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from tests.engine_graphs import make_spec

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.engines import build_triton
from vr_trt.engines.build_triton import BUILDER
from vr_trt.engines.builder import find_builder
from vr_trt.engines.spec import EngineSpec
from vr_trt.engines.triton_generator import TritonGenerator
from vr_trt.engines.triton_memory import card_bytes
from vr_trt.engines.triton_plan import read_plan, write_plan
from vr_trt.engines.triton_stages import Shared, lay_out, open_stage
from vr_trt.errors import ModelError
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.models import find_model_files
from vr_trt.runtime.triton_session import open_device

GRAPH = Path(build_triton.__file__).with_name("nano") / "generator.onnx"
LATENT = (1, 48, 3, 6, 4)
CPU = Shared.of([], torch.device("cpu"))


def spec_of(**changes: object) -> EngineSpec:
    fields = {
        "model": "nano",
        "backend": "triton",
        "targets": (89, 90),
        "shapes": {name: LATENT for name in ("noise", "latent")},
    }
    return make_spec(**fields | changes)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("triton") / "plan"
    report = BUILDER.build(spec_of(), GRAPH, path, print)
    assert set(report.seconds) == {"read", "compile", "write"}
    assert {name: facts["arch"] for name, facts in report.facts.items()} == {
        "sm_89": "sm_89",
        "sm_90": "sm_90a",
    }
    return path


def test_a_plan_holds_the_folded_network(plan: Path) -> None:
    files = find_model_files("nano")
    wanted = fold_generator(
        files.generator, files.load_generator(), files.load_text(), dtype=torch.float16
    )
    found = read_plan(plan)
    assert (found.stage, found.config, found.sizes) == ("generator", files.generator, LATENT)
    assert found.state.keys() == wanted.state_dict().keys()
    for name, tensor in wanted.state_dict().items():
        torch.testing.assert_close(found.state[name], tensor, rtol=0, atol=0)


def test_a_plan_opens_as_a_stage(plan: Path) -> None:
    stage = open_stage(plan, Shared.of([plan], torch.device("cpu")))
    assert {name: tuple(x.shape) for name, x in stage.inputs.items()} == {
        "noise": LATENT,
        "latent": LATENT,
    }
    assert {x.dtype for x in (*stage.inputs.values(), *stage.outputs.values())} == {torch.float16}


def pictures_plan(plan: Path, path: Path, change: float = 0.0) -> Path:
    """Of the same network for one latent, or of one that is a little different."""
    found = read_plan(plan)
    state = {**found.state, "patch_out.bias": found.state["patch_out.bias"] + change}
    sizes = (*LATENT[:2], 1, *LATENT[3:])
    write_plan(replace(found, stage="generator_image", sizes=sizes, state=state), path)
    return path


def opened_weights(shared: Shared, *plans: Path) -> list[Mapping[str, torch.Tensor]]:
    stages = [open_stage(path, shared) for path in plans]
    assert all(isinstance(stage, TritonGenerator) for stage in stages)
    return [stage.weights for stage in stages if isinstance(stage, TritonGenerator)]


@pytest.mark.parametrize("parts", [(), ("generator",)])
def test_a_pictures_generator_has_the_weights_of_a_videos(
    plan: Path, tmp_path: Path, parts: tuple[str, ...]
) -> None:
    image = pictures_plan(plan, tmp_path / "image")
    shared = Shared.of([plan, image], torch.device("cpu"), parts)
    video, picture = opened_weights(shared, plan, image)
    assert {n: x.data_ptr() for n, x in video.items()} == {
        n: x.data_ptr() for n, x in picture.items()
    }
    for name, tensor in read_plan(plan).state.items():
        assert torch.equal(picture[name], tensor), name
    assert shared.turns is not None
    size = card_bytes(lay_out(read_plan(plan), None)).weights
    assert len(shared.turns) == shared.rota.memory == (size if parts else 0)
    if parts:
        ours = shared.turns.untyped_storage().data_ptr()
        assert {x.untyped_storage().data_ptr() for x in video.values()} == {ours}


def test_other_weights_are_held_beside_them_or_refused(plan: Path, tmp_path: Path) -> None:
    other = pictures_plan(plan, tmp_path / "image", change=0.25)
    video, picture = opened_weights(Shared.of([plan, other], torch.device("cpu")), plan, other)
    assert not torch.equal(video["patch_out.bias"], picture["patch_out.bias"])
    turns = Shared.of([plan, other], torch.device("cpu"), ("generator",))
    with pytest.raises(ModelError, match="generator_image has other weights .*: build both again"):
        opened_weights(turns, plan, other)


def test_bf16_is_rounded_once(plan: Path, tmp_path: Path) -> None:
    BUILDER.build(spec_of(precision="bf16", targets=(80,)), GRAPH, tmp_path / "plan", print)
    state = read_plan(tmp_path / "plan").state
    assert {x.dtype for x in state.values()} == {torch.bfloat16}
    ours = state["patch_in.weight"].float() - read_plan(plan).state["patch_in.weight"].float()
    assert 0 < ours.abs().max() < 0.01


def test_a_damaged_plan_is_refused(plan: Path, tmp_path: Path) -> None:
    whole, path = plan.read_bytes(), tmp_path / "plan"
    for content in (b"", b"nothing", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="no plan of triton's .*: build it again"):
            read_plan(path)
    torch.save({"stage": "generator"}, path)
    with pytest.raises(ModelError, match="no plan of triton's"):
        open_stage(path, CPU)
    content = torch.load(plan, weights_only=True)
    del content["state"]["patch_out.bias"]
    torch.save(content, path)
    with pytest.raises(ModelError, match="does not hold generator .*patch_out.bias"):
        open_stage(path, CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_loaded(plan: Path) -> None:
    with pytest.raises(ModelError, match="needs an NVIDIA GPU"):
        open_device([plan])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"stage": "decode_step"}, "nothing as network.conv_in.weight"),
        ({"model": "mine"}, "runs nano, seedvr2-3b, .* not 'mine'"),
        ({"model": "seedvr2-3b"}, r"has \(\d+, \d+\) as folded.*seedvr2-3b has"),
    ],
)
def test_what_cannot_be_built_is_refused(
    changes: dict[str, object], error: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=error):
        BUILDER.build(spec_of(**changes), GRAPH, tmp_path / "plan", print)


def test_a_graph_without_the_network_is_refused(tmp_path: Path) -> None:
    model = onnx.load(GRAPH, load_external_data=False)
    kept = [x for x in model.graph.initializer if "patch_in.bias" not in x.name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    graph = tmp_path / "generator.onnx"
    graph.write_bytes(model.SerializeToString())
    (tmp_path / "generator.bin").symlink_to(GRAPH.with_name("generator.bin"))
    with pytest.raises(ModelError, match="nothing as folded.patch_in.bias"):
        BUILDER.build(spec_of(), graph, tmp_path / "plan", print)


def test_it_is_the_builder_of_its_name() -> None:
    assert find_builder("triton") is BUILDER and BUILDER.available() is None
    assert BUILDER.version() and set(BUILDER.default_targets) <= set(BUILDER.targets)
    assert BUILDER.flags({}) == {}
    with pytest.raises(ModelError, match="no option 'x'"):
        BUILDER.flags({"x": "1"})
    with pytest.raises(ModelError, match="no fp32: choose fp16, bf16 or fp8"):
        BUILDER.check("fp32", 90)
    with pytest.raises(ModelError, match="sm_75 is older"):
        BUILDER.check("fp16", 75)
    with pytest.raises(ModelError, match="for a GPU"):
        BUILDER.check("fp16", None)
    BUILDER.check("bf16", 120)
    small, large = (BUILDER.estimate_memory(spec_of(), n) for n in (0, 10**9))
    assert large - small > 10**9
