"""What each stage of a model has to compute and to move at one size, counted without weights.

Operations are counted by PyTorch on the folded networks (spec §9 has the plain ones), two a
multiply-add; bytes are every input, output and weight once. What a chip could do in the same time
by its measured ceilings makes the roofline's share.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vr_trt.bench.roofline import Unit, Work
from vr_trt.engines.network_layers import Call, Verb, vae_layers
from vr_trt.export.config import GENERATOR_NANO, VAE, VAE_NANO, GeneratorConfig, VaeConfig
from vr_trt.export.flops import TEXT_TOKENS
from vr_trt.export.folded_generator import FoldedGenerator
from vr_trt.export.models import PUBLISHED
from vr_trt.export.onnx_graph import Trace
from vr_trt.export.stages import StageShape, coder_stages, generator_stages
from vr_trt.export.vae import IMAGE, VIDEO, Decoder, Encoder

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "fp8": 2}  # of an activation
WEIGHT_BYTES = BYTES | {"fp8": 1}  # of a weight of the generator
NANO_TEXT_TOKENS = 8


def configs_of(model: str) -> tuple[GeneratorConfig, VaeConfig] | None:
    """The configurations of a known model; None for another."""
    if model == "nano":
        return GENERATOR_NANO, VAE_NANO
    return (PUBLISHED[model][0], VAE) if model in PUBLISHED else None


def stage_work(model: str, shape: StageShape, precision: str, *, cut: bool) -> dict[str, Work]:
    """The work of every stage by its name; empty for a model whose sizes are not known.

    In fp8 the generator is held to that ceiling as a whole, though some of it stays wide: its floor
    is too low rather than too high.
    """
    configs = configs_of(model)
    if configs is None:
        return {}
    generator, vae = configs
    work = dict(_coders(vae, shape, precision, cut))
    with torch.device("meta"):
        text = NANO_TEXT_TOKENS if model == "nano" else TEXT_TOKENS
        folded = FoldedGenerator(generator, text)
        traces = list(generator_stages(folded, shape))
    for trace in traces:
        trace.module.to("meta")
        weights = sum(p.numel() for p in folded.parameters()) * WEIGHT_BYTES[precision]
        unit: Unit = "fp8" if precision == "fp8" else "wide"
        work[trace.name] = _work(trace, weights, BYTES[precision], unit)
    return work


def _coders(
    config: VaeConfig, shape: StageShape, precision: str, cut: bool
) -> Iterator[tuple[str, Work]]:
    for coder, verb in _CODERS:
        with torch.device("meta"):
            video, image = partial(coder, config, VIDEO), partial(coder, config, IMAGE)
            traces = list(coder_stages(video, image, shape, cut=cut))
        for trace in traces:
            fine = "_fine_" in trace.name if cut and not trace.name.endswith("image") else None
            call: Call = next(c for c in _CALLS if trace.name.endswith(c))
            layers = vae_layers(config, verb, call)
            parameters = sum(x.parameters for x in layers if fine is None or x.fine == fine)
            size = BYTES[precision]
            yield trace.name, _work(trace, parameters * size, size, "wide")


_CODERS: tuple[tuple[type[Encoder] | type[Decoder], Verb], ...] = (
    (Encoder, "encode"),
    (Decoder, "decode"),
)
_CALLS: tuple[Call, ...] = ("start", "step", "image")


def _work(trace: Trace, weight_bytes: int, size: int, unit: Unit) -> Work:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        results = trace.module(*trace.arguments)
    ends = [*_tensors(trace.arguments), *_tensors(results)]
    moved = sum(tensor.numel() for tensor in ends) * size
    return Work(unit=unit, flops=counter.get_total_flops(), bytes=moved + weight_bytes)


def _tensors(values: "Tensor | Sequence[Tensor | Sequence[Tensor]]") -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    else:
        for value in values:
            yield from _tensors(value)
