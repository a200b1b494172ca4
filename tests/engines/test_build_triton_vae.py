"""Plans of the VAE's stages: the network's tensors from its graphs, what they hold, what is refused."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from tests.networks import loud_weights
from tests.vae_graphs import CONFIG, SIZE, export_vae, stage_spec

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from vr_trt.engines import build as engines_build
from vr_trt.engines import build_triton
from vr_trt.engines.build_triton import BUILDER, CODERS
from vr_trt.engines.cache import Canvas
from vr_trt.engines.graphs import GraphRequest
from vr_trt.engines.static_arena import row_bytes
from vr_trt.engines.triton_card import CardBytes
from vr_trt.engines.triton_compile import check_kernels
from vr_trt.engines.triton_memory import card_bytes
from vr_trt.engines.triton_plan import TritonPlan, read_plan
from vr_trt.engines.triton_stages import (
    Shared,
    empty_coder,
    lay_out,
    lay_out_coder,
    open_stage,
)
from vr_trt.errors import ModelError
from vr_trt.export.config import VAE
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.fp8_vae import fp8_layers
from vr_trt.export.vae import IMAGE, STREAM, VIDEO
from vr_trt.kernels.conv3d import conv3d

CPU = torch.device("cpu")
HEIGHT, WIDTH = SIZE
# The sub-pixel weights of a call: a start's second level has three frames.
SETS = {
    "decode_start": {"0.upsamplers.0.first", "0.upsamplers.0.second", "1.upsamplers.0.first",
                     "1.upsamplers.0.second", "1.upsamplers.0.step", "2.upsamplers.0.step"},
    "decode_step": {f"{level}.upsamplers.0.step" for level in range(3)},
    "decode_image": {f"{level}.upsamplers.0.first" for level in range(3)},
}  # fmt: skip


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_vae(tmp_path_factory.mktemp("vae") / "graphs", "fp16")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small VAE, and nothing compiled: that takes minutes."""
    monkeypatch.setattr(build_triton, "_configs_of", lambda model: (None, CONFIG))
    monkeypatch.setattr(build_triton, "_kernels", lambda plan, stage, sm: {"arch": f"sm_{sm}"})


def build(graph: Path, path: Path, **changes: Any) -> dict[str, Any]:
    return BUILDER.build(stage_spec(graph, "fp16", **changes), graph, path, print).facts


@pytest.mark.parametrize("stage", CODERS)
def test_a_plan_holds_what_its_stage_uses_of_the_folded_network(
    graphs: Path, stage: str, tmp_path: Path
) -> None:
    """Also what the tracer computed with: attention's linears, a picture's and a start's kernels."""
    build(graphs / f"{stage}.onnx", tmp_path / "plan")
    found = read_plan(tmp_path / "plan")
    fold = fold_encoder if stage.startswith("encode") else fold_decoder
    form = IMAGE if stage.endswith("image") else VIDEO
    network = fold(CONFIG, loud_weights(CONFIG), form, torch.float16).state_dict()
    sets = SETS.get(stage, set())
    wanted = {
        name: tensor
        for name, tensor in network.items()
        if "upsamplers" not in name or any(part in name for part in sets)
    }
    assert found.state.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found.state[name], tensor, rtol=0, atol=0)
    assert (found.stage, found.config, found.precision) == (stage, CONFIG, "fp16")
    assert found.stream == pytest.approx(STREAM, rel=1e-6)


def test_plans_open_with_the_names_of_the_graphs_and_share_states(
    graphs: Path, tmp_path: Path
) -> None:
    for stage in ("decode_start", "decode_step"):
        build(graphs / f"{stage}.onnx", tmp_path / stage)
    shared = Shared.of([tmp_path / "decode_start", tmp_path / "decode_step"], CPU)
    start, step = (open_stage(tmp_path / s, shared) for s in ("decode_start", "decode_step"))
    graph = onnx.load(graphs / "decode_step.onnx", load_external_data=False).graph
    assert set(step.inputs) == {value.name for value in graph.input}
    assert set(step.outputs) == {value.name for value in graph.output}
    assert step.inputs["latent"].shape == (1, 16, 1, HEIGHT // 8, WIDTH // 8)
    assert start.outputs["x"].shape == (1, 3, 5, HEIGHT, WIDTH)
    for name in (name for name in start.outputs if name.startswith("next.")):
        assert start.outputs[name] is step.inputs[name.replace("next.", "state.")]


def test_what_the_manifest_says_of_the_card_is_what_is_held(graphs: Path, tmp_path: Path) -> None:
    facts = build(graphs / "decode_step.onnx", tmp_path / "plan", targets=(80, 90))
    assert facts["sm_90"]["arch"] == "sm_90"
    assert CardBytes(**facts["sm_90"]["card"]).states > 0
    plan, shared = read_plan(tmp_path / "plan"), Shared.of([tmp_path / "plan"], CPU)
    planned, held = (
        card_bytes(lay_out(plan, None)),
        card_bytes(open_stage(tmp_path / "plan", shared)),
    )
    assert planned == held and len(shared.memory) == planned.arena
    states = row_bytes(shared.states["decode"].values())
    weights = sum(tensor.nbytes for tensor in plan.state.values())
    assert held.states == states and held.own > weights
    twice = replace(plan, sizes=(*plan.sizes[:3], 2 * plan.sizes[3], plan.sizes[4]))
    larger = card_bytes(lay_out(twice, None))
    assert 1.5 < larger.arena / planned.arena < 2.1 and 1.5 < larger.states / planned.states < 2.1


def test_parts_that_take_turns_lie_in_one_piece(graphs: Path, tmp_path: Path) -> None:
    """As large as the manifests say."""
    stages = [f"{verb}_{call}" for verb in ("encode", "decode") for call in ("start", "step")]
    facts = {s: build(graphs / f"{s}.onnx", tmp_path / s) for s in stages}
    states = {s: CardBytes(**facts[s]["sm_90"]["card"]).states for s in stages}
    shared = Shared.of([tmp_path / s for s in stages], CPU, ("decoder", "encoder"))
    assert dict(shared.rota.sizes) == {
        "encoder": states["encode_step"], "decoder": states["decode_step"]
    }  # fmt: skip
    assert shared.turns is not None and len(shared.turns) == max(states.values())
    opened = [open_stage(tmp_path / s, shared) for s in stages]
    first, size = shared.turns.data_ptr(), len(shared.turns)
    for stage in opened:
        for name in (n for n in stage.outputs if n.startswith("next.")):
            x = stage.outputs[name]
            assert first <= x.data_ptr() and x.data_ptr() + x.nbytes <= first + size
    places = sorted((x.data_ptr(), x.nbytes) for x in shared.states["decode"].values())
    assert all(at + size <= other for (at, size), (other, _) in pairwise(places))


def test_other_graphs_are_refused(graphs: Path, tmp_path: Path) -> None:
    plan, step = tmp_path / "plan", graphs / "decode_step.onnx"
    with pytest.raises(ModelError, match="decode_fine_step is cut by resolution: .* --whole"):
        build(step, plan, stage="decode_fine_step")
    with pytest.raises(
        ModelError, match="nothing as network.up_blocks.0.upsamplers.0.first.weight"
    ):
        build(step, plan, stage="decode_start")
    with pytest.raises(ModelError, match="as network.conv_in.weight and tiny has"):
        build(graphs / "decode_image.onnx", plan, stage="decode_step")


@pytest.mark.parametrize(("cut", "lines"), [(None, 0), (True, 1)])
def test_a_vae_that_would_be_cut_is_taken_whole(
    cut: bool | None, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silently where a profile cuts, with a line where it was asked for."""
    asked: list[GraphRequest] = []

    def find_graphs(wanted: GraphRequest, watch: object, cache: object) -> None:
        asked.append(wanted)
        raise ModelError("seen")

    monkeypatch.setattr(engines_build, "find_graphs", find_graphs)
    canvas = Canvas(width=1920, height=1088, latents=6, step=1)
    request = engines_build.BuildRequest(
        model="nano", profile="1080p", canvas=canvas, backend="triton", cut=cut, default_cut=True
    )
    said: list[str] = []
    with pytest.raises(ModelError, match="seen"):
        engines_build.build_engines(request, engines_build.Watch(says=said.append))
    assert [wanted.cut for wanted in asked] == [False]
    assert len(said) == lines and all("triton has the VAE in one piece" in line for line in said)


def test_a_plan_without_a_tensor_is_refused(graphs: Path, tmp_path: Path) -> None:
    build(graphs / "decode_image.onnx", tmp_path / "plan")
    content = torch.load(tmp_path / "plan", weights_only=True)
    del content["state"]["conv_out.bias"]
    torch.save(content, tmp_path / "plan")
    with pytest.raises(ModelError, match="does not hold decode_image .*conv_out.bias"):
        Shared.of([tmp_path / "plan"], CPU)


# Of 16 channels in and out: each small coder has only one.
LAYERS = {"encoder": "down_blocks.2.resnets.0.conv2", "decoder": "up_blocks.1.resnets.0.conv2"}
HALVES = [("encoder", "encode"), ("decoder", "decode")]
BOTH = {"encoder": True, "decoder": True}


def gate(folder: Path, **changes: Any) -> Path:
    """The report of a gate that passed, on the weights of `make_spec`."""
    report = folder / "gate.json"
    amax = {half: {layer: 7.0, "conv_9": 1.0} for half, layer in LAYERS.items()}
    verdict = {"weights": "ab" * 32, "passed": BOTH, "amax": amax}
    report.write_text(json.dumps({"gate": {**verdict, **changes}}))
    return report


@pytest.mark.parametrize(("half", "verb"), HALVES)
def test_a_half_in_e4m3_by_the_gates_report(
    graphs: Path, tmp_path: Path, half: str, verb: str
) -> None:
    flags, layer = BUILDER.flags({"fp8_vae": str(gate(tmp_path))}), LAYERS[half]
    start, step, image = (f"{verb}_{call}" for call in ("start", "step", "image"))
    facts = {
        s: build(graphs / f"{s}.onnx", tmp_path / s, flags=flags) for s in (start, step, image)
    }
    plans = {s: read_plan(tmp_path / s) for s in (start, step, image)}
    assert plans[step].amax == plans[start].amax == {layer: 7.0}
    assert plans[image].amax == {}  # which the gate does not judge
    assert [facts[s].get("e4m3_convolutions") for s in (start, step, image)] == [1, 1, None]
    shared = Shared.of([tmp_path / start], CPU)
    opened = [open_stage(tmp_path / stage, shared) for stage in (start, step)]
    kinds = {name: x.dtype for name, x in opened[1].inputs.items()}
    assert {n for n, k in kinds.items() if k == torch.float8_e4m3fn} == {f"state.{layer}"}
    assert opened[0].outputs[f"next.{layer}"] is opened[1].inputs[f"state.{layer}"]
    build(graphs / f"{step}.onnx", tmp_path / step)
    with pytest.raises(ModelError, match=f"keeps {layer} as .*build the start and the step"):
        open_stage(tmp_path / step, shared)


def test_a_half_that_failed_its_gate_stays_wide(graphs: Path, tmp_path: Path) -> None:
    report = gate(tmp_path, passed=BOTH | {"encoder": False})
    flags = BUILDER.flags({"fp8_vae": str(report)})
    amax = {}
    for stage in ("encode_step", "decode_step"):
        build(graphs / f"{stage}.onnx", tmp_path / stage, flags=flags)
        amax[stage] = read_plan(tmp_path / stage).amax
    assert amax == {"encode_step": {}, "decode_step": {LAYERS["decoder"]: 7.0}}


def test_e4m3_without_the_gates_word_is_refused(graphs: Path, tmp_path: Path) -> None:
    def flags(**changes: Any) -> dict[str, str]:
        return dict(BUILDER.flags({"fp8_vae": str(gate(tmp_path, **changes))}))

    with pytest.raises(ModelError, match="failed its gate"):
        flags(passed=dict.fromkeys(BOTH, False))
    with pytest.raises(ModelError, match="failed its gate"):
        flags(passed=dict.fromkeys(BOTH, "yes"))
    good = {layer: 7.0 for layer in LAYERS.values()}
    for bad in ({}, {LAYERS["decoder"]: -1.0}, None):
        with pytest.raises(ModelError, match="no report of the gate"):
            flags(amax={"encoder": good, "decoder": bad})
    for other in (True, {"decoder": True}):  # a report of before, or of something else
        with pytest.raises(ModelError, match="no report of the gate"):
            flags(passed=other)
    with pytest.raises(ModelError, match="cannot read"):
        BUILDER.flags({"fp8_vae": str(tmp_path / "nothing.json")})
    step = graphs / "decode_step.onnx"
    with pytest.raises(ModelError, match="other weights"):
        build(step, tmp_path / "plan", flags=flags(weights="ee" * 32))
    with pytest.raises(ModelError, match="sm_86 has no E4M3"):
        build(step, tmp_path / "plan", flags=flags(), targets=(86, 90))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "sizes"),
    [("decode_step", (1, 16, 1, 90, 160)), ("encode_step", (1, 3, 4, 720, 1280))],
)
def test_a_published_coder_in_e4m3_compiles_for_hopper(stage: str, sizes: tuple[int, ...]) -> None:
    plan = published(stage, sizes)
    amax = dict.fromkeys(fp8_layers(empty_coder(plan)), 7.0)
    launches = lay_out_coder(replace(plan, amax=amax), 90).launches
    small = [x for x in launches if x.func is conv3d and x.args[1].dequantise is not None]
    facts = check_kernels(small, 90)
    layers = {id(launch.args[1]) for launch in small}  # fine ones are launched for every group
    assert len(layers) == len(amax) and facts["kernels"] > 3 and "spills" not in facts


def test_a_stage_is_one_kernel_for_each_kind_of_launch() -> None:
    """Compiled ahead of time for a chip that is not here."""
    plan = published("decode_image", (1, 16, 1, 4, 4))
    stage = lay_out_coder(plan, 90)
    norms = [launch for launch in stage.launches if launch.func.__name__ == "scale_shift"]
    facts = check_kernels(norms, 90)
    assert facts["arch"] == "sm_90a" and 0 < facts["registers"] <= 128
    assert 3 <= facts["kernels"] < len(norms)  # of 128, 256 and 512 channels


def published(stage: str, sizes: tuple[int, ...]) -> TritonPlan:
    """The published VAE without weights."""
    plan = TritonPlan(
        stage=stage, config=VAE, precision="bf16", sizes=sizes, state={}, stream=STREAM
    )
    return replace(plan, state=empty_coder(plan).bfloat16().state_dict())
