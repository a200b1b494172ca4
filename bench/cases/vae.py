"""Whole steps of the VAE in bf16: four frames to one latent and back, with the causal state.

PyTorch's ways run the network as it is published and as folding leaves it. Where a tensor of four
frames would have 2^31 elements or more, the highest resolution goes frame by frame, exactly.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from vr_trt.bench.case import COMPILED, OURS, PYTORCH, Case, Way
from vr_trt.bench.cases.networks import captured, filled, half, network_bytes, normal
from vr_trt.bench.cases.pixels import without_gradients
from vr_trt.bench.roofline import Work
from vr_trt.engines.triton_vae import TritonCoderStage
from vr_trt.engines.vae_layers import pack_coder
from vr_trt.export.causal import Stream
from vr_trt.export.config import VAE, VaeConfig
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.fp8_vae import observe
from vr_trt.export.vae import PLAIN, VIDEO, Decoder, Encoder

Coder = Encoder | Decoder
Part = Literal["decode", "encode"]
State = Mapping[str, Tensor]
PARTS: tuple[Part, ...] = ("decode", "encode")

SIZES = {"720p": (720, 1280), "1080p": (1088, 1920)}
TINY = VaeConfig(channels=(8, 8, 16, 16), encoder_resnets=1, decoder_resnets=1, groups=4)
FRAMES = 4
LIMIT = 0.1  # of bf16 through all layers, against fp32
FP8_LIMIT = 0.3
SEED = 0  # of the weights
CALIBRATED = 90, 160  # rows and columns at most of what fp8's scales are taken from
SECONDS = 150.0  # with some fifty kernels that are compiled, one after the other
# Operations a pixel of a frame without the attention, and the attention's a pixel and position of a
# latent, of the folded network: what every version needs (as published, decoding takes 23.555e6).
FLOPS: dict[Part, float] = {"encode": 8.921e6, "decode": 18.53e6}
ATTENTION_FLOPS = 4 * 512 / 256
LARGEST = 2**31


@dataclass(frozen=True, kw_only=True)
class Inputs:
    part: Part
    config: VaeConfig
    past: Tensor  # a shot's start: 5 frames, or 2 latents
    x: Tensor  # the step's [1, 3, 4, H, W] or [1, 16, 1, h, w]

    @property
    def by_frame(self) -> bool:
        """Whether four frames are too much for a tensor at full resolution."""
        pixels = self.x.shape[3] * self.x.shape[4]
        widest = self.config.channels[0]
        if self.part == "decode":
            pixels, widest = 64 * pixels, self.config.channels[1]
        return widest * (FRAMES + 2) * pixels >= LARGEST

    def plain(self) -> Coder:
        """The network as published, in fp32; the same every time."""
        return _plain(self.part, self.config, str(self.x.device))

    def folded(self) -> Coder:
        """The same, folded."""
        weights = {f"{self.part}r.{k}": v for k, v in self.plain().state_dict().items()}
        fold = fold_decoder if self.part == "decode" else fold_encoder
        with torch.device(self.x.device):
            return fold(self.config, weights, VIDEO)

    def scaled(self, x: Tensor) -> Tensor:
        """Latents as the network as published takes or gives them, to what folding made of them."""
        if self.part == "decode":
            return x / self.config.scaling
        return x[:, : self.config.latent_channels] * self.config.scaling


@lru_cache(maxsize=1)
def _plain(part: Part, config: VaeConfig, device: str) -> Coder:
    return filled(lambda: (Decoder if part == "decode" else Encoder)(config, PLAIN), device, SEED)


def advance(network: Coder, x: Tensor, past: State | None, by_frame: bool) -> tuple[Tensor, State]:
    """The stage's result, and the state for the next call."""
    stream = Stream(past)
    if not by_frame:
        return network(x, stream), stream.next
    if isinstance(network, Encoder):
        x, fine = _fine(network, x, past)
        return network.coarse(x, stream), {**fine, **stream.next}
    x, fine = _fine(network, network.coarse(x, stream), past)
    return x, {**fine, **stream.next}


def _fine(network: Coder, x: Tensor, past: State | None) -> tuple[Tensor, State]:
    frames, state = [], past
    for frame in x.split(1, 2):
        stream = Stream(state)
        frames.append(network.fine(frame, stream))
        state = stream.next
    assert state is not None
    return torch.cat(frames, 2), state


def make(part: Part, config: VaeConfig, height: int, width: int) -> Callable[[str, int], Inputs]:
    """Random pictures or latents."""

    def inputs(device: str, seed: int) -> Inputs:
        first, step = (5, FRAMES) if part == "encode" else (2, 1)
        scale = 1 if part == "encode" else 8
        channels = config.image_channels if part == "encode" else config.latent_channels
        shape = height // scale, width // scale
        return Inputs(
            part=part,
            config=config,
            past=normal(device, seed, 1, channels, first, *shape),
            x=normal(device, seed + 1, 1, channels, step, *shape),
        )

    return inputs


def reference(given: Inputs) -> tuple[Tensor, ...]:
    """As published, in fp32, frame by frame; TF32's products are eight times finer than bf16's."""
    torch.backends.cudnn.allow_tf32 = True
    past, x = given.past.float(), given.x.float()
    with torch.no_grad():
        if given.part == "decode":
            past, x = given.scaled(past), given.scaled(x)
        _, state = advance(given.plain(), past, None, True)
        out, _ = advance(given.plain(), x, state, True)
        return (out if given.part == "decode" else given.scaled(out),)


def ours(*, fp8: bool = False) -> Way:
    """The triton backend's stage, captured as it is in a run; its states live in it."""

    def way(given: Inputs) -> Callable[[], Tensor]:
        network = given.folded().to(half(given.x.device.type))
        calibration = given.past[..., : CALIBRATED[0], : CALIBRATED[1]].to(network.conv_in.weight)
        amax = observe(network, [calibration]) if fp8 else None
        layers, states = pack_coder(network, amax), dict[str, Tensor]()
        came, result = ("latent", "x") if given.part == "decode" else ("x", "latent")
        start = TritonCoderStage(network, layers, "start", _size(given.past), states)
        start.inputs[came].copy_(given.past)
        start.run()
        kept = {name: state.clone() for name, state in states.items()}
        step = TritonCoderStage(network, layers, "step", _size(given.x), states)
        step.inputs[came].copy_(given.x)
        call = captured(step.run, step.outputs[result])
        for name, state in kept.items():  # they have moved on
            states[name].copy_(state)
        return call

    return way


def _size(x: Tensor) -> tuple[int, int, int]:
    """Frames, rows, columns."""
    frames, rows, columns = x.shape[2:]
    return frames, rows, columns


def pytorch(*, folded: bool = False, last: bool = True, compiles: bool = False) -> Way:
    """PyTorch in bf16; `last`: channels last, in weights and pictures."""
    layout = torch.channels_last_3d if last else torch.contiguous_format

    def way(given: Inputs) -> Callable[[], Tensor]:
        network = given.folded() if folded else deepcopy(given.plain())
        network = network.bfloat16()
        network = network.to(memory_format=layout)  # type: ignore[call-overload]  # undeclared
        past, x = given.past, given.x
        if given.part == "decode" and not folded:
            past, x = given.scaled(past.float()).bfloat16(), given.scaled(x.float()).bfloat16()
        past, x = past.contiguous(memory_format=layout), x.contiguous(memory_format=layout)
        with torch.no_grad():
            _, state = advance(network, past, None, given.by_frame)

        def step(x: Tensor, state: State) -> tuple[Tensor, State]:
            return advance(network, x, state, given.by_frame)

        run = torch.compile(step, dynamic=False) if compiles else step

        def call() -> Tensor:
            out, _ = run(x, state)
            return given.scaled(out) if given.part == "encode" and not folded else out

        return without_gradients(call)

    return way


def flops(part: Part, height: int, width: int) -> float:
    """Of a step of four frames, folded; a test holds it to PyTorch's count."""
    positions = height * width / 64
    return FRAMES * height * width * (FLOPS[part] + ATTENTION_FLOPS * positions)


def case(name: str, part: Part, config: VaeConfig, size: tuple[int, int], rank: int) -> Case:
    """One stage at one size."""
    height, width = size
    pictures = 3 * FRAMES * height * width + config.latent_channels * height * width / 64
    with torch.device("meta"):
        weights = network_bytes((Decoder if part == "decode" else Encoder)(config, PLAIN))
    ways: dict[str, Way] = {
        OURS: ours(),
        f"{PYTORCH} channels last": pytorch(),
        PYTORCH: pytorch(last=False),
        f"{PYTORCH} folded": pytorch(folded=True),
        COMPILED: pytorch(compiles=True),
    }
    return Case(
        name=f"{part}_step {name}",
        kernel="vae",
        importance=rank,
        # The state is not counted: a version may leave it where it lies.
        work=Work(
            unit="wide",
            flops=flops(part, height, width) if config is VAE else 0.0,
            bytes=weights + 2 * pictures,
        ),
        limit=LIMIT,
        make=make(part, config, height, width),
        reference=reference,
        ways=ways,
        shape={"height": height, "width": width, "frames": FRAMES},
        seconds=SECONDS,
    )


def fp8_case(made: Case) -> Case:
    """The same stage with E4M3 in the convolutions of its blocks, held to the fp8 ceiling.

    Random weights are no measure of its quality, which has a gate of its own (`fp8_vae_gate`): the
    limit only tells a right stage from a wrong one.
    """
    return replace(
        made,
        name=f"{made.name} fp8",
        importance=made.importance + 1,
        work=replace(made.work, unit="fp8"),
        limit=FP8_LIMIT,
        ways={OURS: ours(fp8=True)},
    )


def cases(small: bool) -> list[Case]:
    """All of them."""
    if small:  # without ours, which the interpreter takes minutes for
        tiny = [case("tiny", part, TINY, (32, 48), 0) for part in PARTS]
        return [
            replace(
                made,
                ways={name: way for name, way in made.ways.items() if not name.startswith(OURS)},
            )
            for made in tiny
        ]
    ranks = {("720p", "decode"): 0, ("1080p", "decode"): 0, ("720p", "encode"): 1}
    made = [
        case(name, part, VAE, size, ranks.get((name, part), 2))
        for part in PARTS
        for name, size in SIZES.items()
    ]
    return [*made, *map(fp8_case, made)]
