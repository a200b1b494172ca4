"""Engines of the `triton` backend: a stage's tensors from its graph, for our own kernels.

The arithmetic is not read from the graph: it is the network that the graph was traced from. What is
proven here is that every tensor has the right shape, and that the kernels (of the generator: its
attention) compile for the target and fit its shared memory; a note tells of registers that spill.
They are compiled again, by Triton, where they run.

The VAE is always in one piece: a call's activations share one arena with all other stages, and its
states are updated in place, which saves what cutting would.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_trt.engines.builder import BuildReport, Progress
from vr_trt.engines.chips import check_chip
from vr_trt.engines.fp8_vae import Fp8Vae
from vr_trt.engines.graphs import NETWORK_STAGES, WHOLE
from vr_trt.engines.spec import EngineSpec
from vr_trt.errors import ModelError
from vr_trt.kernels.tuning import CHIPS

if TYPE_CHECKING:
    from torch import Tensor

    from vr_trt.engines.graph_tensors import GraphTensors
    from vr_trt.engines.static_stage import StaticStage
    from vr_trt.engines.triton_plan import TritonPlan
    from vr_trt.export.config import GeneratorConfig, VaeConfig

PACKAGES = ("triton", "torch", "onnx")
PRECISIONS = ("fp16", "bf16", "fp8")  # beside fp8, the rest is in fp16
FP8_VAE = "fp8_vae"  # an option: the report of the gate
GENERATORS = NETWORK_STAGES["generator"]
CODERS = (*WHOLE, "encode_image", "decode_image")
# Host memory at the peak, fitted to 1 MB and 0.98 GB of fp16 weights.
BASE_BYTES = 500 << 20
WEIGHT_COPIES = 1.1
_GENERATOR, _CODER = "folded", "network"  # where the networks lie in what was traced


class TritonBuilder:
    """A `vr_trt.engines.builder.Builder`."""

    name = "triton"
    targets: tuple[int, ...] = CHIPS
    default_targets: tuple[int, ...] = (90,)
    recipe = 3
    cuts = False

    def version(self) -> str:
        try:
            return version(PACKAGES[0])
        except PackageNotFoundError:
            return ""

    def available(self) -> str | None:
        for package in PACKAGES:
            try:
                version(package)
            except PackageNotFoundError:
                return f"{package} is not installed: pip install 'vr-trt[gpu,export]'"
        return None

    def check(self, precision: str, sm: int | None) -> None:
        if sm is None:
            raise ModelError("triton builds for a GPU: name one with --sm 90, or use onnxruntime")
        if precision not in PRECISIONS:
            raise ModelError(f"the triton backend has no {precision}: choose fp16, bf16 or fp8")
        if precision == "fp8":
            check_chip(precision, sm)
        if sm < min(CHIPS):
            raise ModelError(f"sm_{sm} is older than what the triton backend is for: sm_80 and up")

    def flags(self, options: Mapping[str, str]) -> Mapping[str, str]:
        if unknown := set(options) - {FP8_VAE}:
            raise ModelError(
                f"triton has no option {min(unknown)!r}: leave it out; there is {FP8_VAE}=REPORT"
            )
        if FP8_VAE not in options:
            return {}
        return {FP8_VAE: Fp8Vae.read(Path(options[FP8_VAE])).as_flag()}

    def estimate_memory(self, spec: EngineSpec, weights: int) -> int:
        return int(BASE_BYTES + WEIGHT_COPIES * weights)

    def build(
        self, spec: EngineSpec, onnx_path: Path, out_path: Path, progress: Progress
    ) -> BuildReport:
        from vr_trt.engines.triton_compile import spill_note
        from vr_trt.engines.triton_memory import card_bytes
        from vr_trt.engines.triton_plan import write_plan
        from vr_trt.engines.triton_stages import lay_out

        times = [time.monotonic()]
        progress("reading")
        plan = _plan(spec, onnx_path)
        times.append(time.monotonic())
        progress("compiling")
        facts: dict[str, Any] = {"e4m3_convolutions": len(plan.amax)} if plan.amax else {}
        for sm in spec.targets:
            stage = lay_out(plan, sm)
            facts[f"sm_{sm}"] = {**_kernels(plan, stage, sm), "card": asdict(card_bytes(stage))}
        notes = [note for sm in spec.targets if (note := spill_note(facts[f"sm_{sm}"]))]
        times.append(time.monotonic())
        progress("writing")
        write_plan(plan, out_path)
        times.append(time.monotonic())
        steps = zip(("read", "compile", "write"), pairwise(times), strict=True)
        seconds = {name: end - start for name, (start, end) in steps}
        return BuildReport(seconds=seconds, facts=facts, notes=notes)


def _plan(spec: EngineSpec, onnx_path: Path) -> "TritonPlan":
    """The plan of `spec`: its tensors from the graph, each of the shape that the stage wants."""
    from vr_trt.engines.graph_tensors import GraphTensors
    from vr_trt.engines.triton_plan import TritonPlan

    is_generator = spec.stage in GENERATORS
    if not is_generator and spec.stage not in CODERS:
        raise ModelError(
            f"the triton backend has the VAE in one piece, and {spec.stage} is cut by resolution: "
            "export the model with --whole"
        )
    network = _GENERATOR if is_generator else _CODER
    graph = GraphTensors(onnx_path, network)
    generator, vae = _configs_of(spec.model)
    source = "x" if spec.stage.startswith("encode") else "latent"
    epsilon = None if is_generator else graph.epsilon()
    plan = TritonPlan(
        stage=spec.stage,
        config=generator if is_generator else vae,
        precision=spec.precision,
        sizes=spec.shapes[source],
        state=_tensors(graph, spec, onnx_path),
        stream=1.0 if epsilon is None else (epsilon / vae.norm_eps) ** 0.5,
    )
    wanted = _wanted(plan)
    for name, shape in wanted.items():
        found = tuple(plan.state[name].shape) if name in plan.state else "nothing"
        if found != shape:
            raise ModelError(
                f"{onnx_path} has {found} as {network}.{name} and {spec.model} has {shape}: export "
                "the model again"
            )
    return replace(plan, state={n: plan.state[n] for n in wanted}, amax=_amax(spec, plan))


def _amax(spec: EngineSpec, plan: "TritonPlan") -> dict[str, float]:
    """Of the layers that take E4M3; none unless it was asked for."""
    if FP8_VAE not in spec.flags:
        return {}
    from vr_trt.engines.triton_stages import empty_coder
    from vr_trt.export.fp8_vae import fp8_layers

    table = Fp8Vae.from_flag(spec.flags[FP8_VAE])
    amax = table.of(spec.stage)
    if not amax:
        return {}
    table.check(spec.weights, spec.targets)
    able = fp8_layers(empty_coder(plan))  # the gate judged layers of any width
    return {name: largest for name, largest in amax.items() if name in able}


def _tensors(graph: "GraphTensors", spec: EngineSpec, onnx_path: Path) -> "dict[str, Tensor]":
    """Those of the graph; of a generator in fp8 its E4M3 linears as well, ModelError without any."""
    from vr_trt.engines.triton_plan import DTYPES

    state = dict(graph.read(DTYPES[spec.precision]))
    if spec.precision != "fp8" or spec.stage not in GENERATORS:
        return state
    codes = graph.e4m3(len(state.get("text", ())))
    if not codes:
        raise ModelError(f"{onnx_path} has no linears in fp8: export it with --precision fp8")
    return state | codes


def _wanted(plan: "TritonPlan") -> dict[str, tuple[int, ...]]:
    """The tensors that the stage uses, and their shapes."""
    from vr_trt.engines import triton_stages as stages
    from vr_trt.export.config import GeneratorConfig

    if isinstance(plan.config, GeneratorConfig):
        whole = stages.empty_generator(plan).state_dict()
        return {name: tuple(tensor.shape) for name, tensor in whole.items()}
    network = stages.empty_coder(plan)
    stages.fit_sub_pixels(network, plan.state)
    whole = network.state_dict()
    laid_out = stages.lay_out_coder(replace(plan, state=whole), None)
    names = stages.needed_tensors(network, laid_out.used)
    return {name: tuple(whole[name].shape) for name in names}


def _configs_of(model: str) -> "tuple[GeneratorConfig, VaeConfig]":
    from vr_trt.export.config import GENERATOR_NANO, VAE, VAE_NANO
    from vr_trt.export.models import PUBLISHED

    if model == "nano":
        return GENERATOR_NANO, VAE_NANO
    if model not in PUBLISHED:
        raise ModelError(
            f"the triton backend runs nano, {', '.join(PUBLISHED)}, not {model!r}: choose another "
            "--backend"
        )
    return PUBLISHED[model][0], VAE


def _kernels(plan: "TritonPlan", stage: "StaticStage", sm: int) -> dict[str, Any]:
    """What the stage's kernels compile to for `sm`; ModelError if one does not fit."""
    from vr_trt.engines.triton_compile import check_attention, check_kernels
    from vr_trt.engines.triton_vae import TritonCoderStage
    from vr_trt.export.config import GeneratorConfig

    if isinstance(stage, TritonCoderStage):
        return check_kernels(stage.launches, sm)
    assert isinstance(plan.config, GeneratorConfig)
    return check_attention(plan.config, plan.precision, sm)


BUILDER = TritonBuilder()
