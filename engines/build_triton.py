"""Engines of the `triton` backend: a stage's tensors from its graph, for our own kernels.

The arithmetic is not read from the graph: it is the network that the graph was traced from, whose
tensors keep their names there. What is proven here is that every tensor has the right shape, and
that the attention compiles for the target without spilling. The rest is compiled, by Triton,
where it runs. So far the generator only.
"""

import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_trt.engines.builder import BuildReport, GraphSize, Progress
from vr_trt.engines.chips import check_chip
from vr_trt.engines.e4m3_graph import CODES, e4m3_tensors
from vr_trt.engines.onnx_file import open_onnx
from vr_trt.engines.spec import EngineSpec
from vr_trt.errors import ModelError
from vr_trt.kernels.tuning import CHIPS

if TYPE_CHECKING:
    from onnx import TensorProto
    from torch import Tensor

    from vr_trt.export.config import GeneratorConfig

PACKAGES = ("triton", "torch", "onnx")
PRECISIONS = ("fp16", "bf16", "fp8")  # beside fp8, the rest is in fp16
STAGES = ("generator", "generator_image")
# Host memory at the peak, fitted to 0.35 and 0.98 GB of fp16 weights.
BASE_BYTES = 400 << 20
WEIGHT_COPIES = 1.1
_NETWORK = "folded."  # where the network lies in what was traced
_STORED_IN_HALF = ".half"


class TritonBuilder:
    """A `vr_trt.engines.builder.Builder`."""

    name = "triton"
    targets: tuple[int, ...] = CHIPS
    default_targets: tuple[int, ...] = (90,)
    recipe = 1

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
        if options:
            raise ModelError(f"triton has no option {next(iter(options))!r}: leave it out")
        return {}

    def estimate_memory(self, spec: EngineSpec, size: GraphSize) -> int:
        return int(BASE_BYTES + WEIGHT_COPIES * size.weights)

    def build(
        self, spec: EngineSpec, onnx_path: Path, out_path: Path, progress: Progress
    ) -> BuildReport:
        from vr_trt.engines.triton_plan import TritonPlan, empty_generator, write_plan

        if spec.stage not in STAGES:
            raise ModelError(
                f"the triton backend has no {spec.stage} yet: choose another --backend"
            )
        start = time.monotonic()
        progress("reading")
        config = _config_of(spec.model)
        tensors = dict(_tensors(onnx_path, spec.precision))
        small = _e4m3(onnx_path, len(tensors.get("text", ()))) if spec.precision == "fp8" else {}
        tensors |= small
        wanted = empty_generator(config, len(tensors.get("text", ()))).state_dict()
        for name, like in wanted.items():
            if name not in tensors or tensors[name].shape != like.shape:
                found = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise ModelError(
                    f"{onnx_path} has {found} as {_NETWORK}{name} and {spec.model} has "
                    f"{tuple(like.shape)}: export the model again"
                )
        progress("compiling")
        read = time.monotonic()
        facts = {f"sm_{sm}": _attention(config, spec.precision, sm) for sm in spec.targets}
        compiled = time.monotonic()
        progress("writing")
        state = {name: tensors[name] for name in wanted} | small
        latent = spec.shapes["latent"].best
        plan = TritonPlan(stage=spec.stage, config=config, latent=latent, state=state)
        write_plan(plan, out_path)
        written = time.monotonic()
        seconds = {"read": read - start, "compile": compiled - read, "write": written - compiled}
        return BuildReport(seconds=seconds, facts=facts)


def _config_of(model: str) -> "GeneratorConfig":
    from vr_trt.export.config import GENERATOR_NANO
    from vr_trt.export.models import PUBLISHED

    if model == "nano":
        return GENERATOR_NANO
    if model not in PUBLISHED:
        raise ModelError(
            f"the triton backend runs nano, {', '.join(PUBLISHED)}, not {model!r}: choose another "
            "--backend"
        )
    return PUBLISHED[model][0]


def _tensors(onnx_path: Path, precision: str) -> "Iterator[tuple[str, Tensor]]":
    """The network's own tensors, by their names in PyTorch, in `precision`; large ones mapped."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    for tensor in open_onnx(onnx_path).graph.initializer:
        if tensor.name.startswith(_NETWORK) and CODES not in tensor.name:
            name = tensor.name.removeprefix(_NETWORK).removesuffix(_STORED_IN_HALF)
            yield name, _tensor(tensor, onnx_path.parent).to(dtype)


def _e4m3(onnx_path: Path, text_tokens: int) -> "dict[str, Tensor]":
    """The tensors of the E4M3 linears; ModelError where there are none."""
    found = e4m3_tensors(
        open_onnx(onnx_path), text_tokens, lambda tensor: _tensor(tensor, onnx_path.parent)
    )
    if not found:
        raise ModelError(f"{onnx_path} has no linears in fp8: export it with --precision fp8")
    return found


def _tensor(tensor: "TensorProto", folder: Path) -> "Tensor":
    """An initializer in PyTorch, which knows bf16."""
    import numpy as np
    import torch
    from onnx import TensorProto, numpy_helper

    kinds: dict[int, tuple[type, torch.dtype]] = {
        TensorProto.FLOAT: (np.float32, torch.float32),
        TensorProto.FLOAT16: (np.float16, torch.float16),
        TensorProto.BFLOAT16: (np.int16, torch.bfloat16),  # its bits: numpy has no such numbers
        TensorProto.FLOAT8E4M3FN: (np.uint8, torch.float8_e4m3fn),
    }
    if tensor.data_type not in kinds:
        raise ModelError(f"{tensor.name} is of a kind that the triton backend does not run")
    stored, kind = kinds[tensor.data_type]
    if tensor.data_location != TensorProto.EXTERNAL:
        return torch.from_numpy(numpy_helper.to_array(tensor).view(stored).copy()).view(kind)
    place = {entry.key: entry.value for entry in tensor.external_data}
    array = np.memmap(
        folder / place["location"], stored, "c", int(place.get("offset", 0)), tuple(tensor.dims)
    )
    return torch.from_numpy(array).view(kind)


def _attention(config: "GeneratorConfig", precision: str, sm: int) -> dict[str, Any]:
    """What the attention compiles to for `sm`; ModelError if it spills or does not fit there."""
    from vr_trt.kernels.aot import SHARED_LIMIT
    from vr_trt.kernels.window_attention import compile_attention

    kind, codes = ("fp16", True) if precision == "fp8" else (precision, False)
    compiled = compile_attention(kind, config.heads, config.head_width, sm, codes=codes)
    if compiled.spills or compiled.shared_bytes > SHARED_LIMIT.get(sm, SHARED_LIMIT[120]):
        raise ModelError(
            f"the attention of heads {config.head_width} wide does not fit sm_{sm}: {compiled.spills} "
            f"bytes spill, {compiled.shared_bytes} of shared memory; choose another --backend"
        )
    return {
        "arch": compiled.arch,
        "registers": compiled.registers,
        "shared_bytes": compiled.shared_bytes,
    }


BUILDER = TritonBuilder()
