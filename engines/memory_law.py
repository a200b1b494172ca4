"""What one call of an engine needs on a GPU: weights, activations, state, and its ends.

Weights, states and ends follow from the networks' sizes. Activations are what TensorRT-RTX lays out
when it builds: so many elements a pixel or a token, read from its log for plans of several sizes
(`bench/results/cpu-engine-memory.json`; a test holds the law to every row). Nothing here was
measured on a GPU. TensorRT 11 chooses other kernels and may need more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from vr_trt.engines.cache import Canvas
from vr_trt.engines.network_layers import Call, Verb, generator_parameters, vae_layers
from vr_trt.errors import ModelError
from vr_trt.export.config import (
    GENERATOR_3B,
    GENERATOR_7B,
    GENERATOR_NANO,
    VAE,
    VAE_NANO,
    GeneratorConfig,
    VaeConfig,
)

Half = Literal["", "fine", "coarse"]
LATENT, TOKEN = 8, 16  # pixels of a latent pixel and of a token, along a side
FRAMES_PER_LATENT, START_FRAMES, START_LATENTS = 4, 5, 2
SCORES = 2  # of attention are held: before the softmax, and after it
INDEX = 8  # bytes of a window table's index
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "fp8": 2}  # of an activation
WEIGHT_BYTES = BYTES | {"fp8": 1}  # of the generator's linears, which are all but all of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """What the law knows of a model."""

    generator: GeneratorConfig
    vae: VaeConfig
    text_tokens: int
    per_token: float  # elements of the generator's activations, for each token of a window
    per_pixel: Mapping[str, float]  # of a VAE stage's, for each pixel of the canvas
    beside_scores: float  # beside the VAE's attention, for each pixel of the canvas and frame

    def has(self, *, cut: bool) -> bool:
        """Whether there is a law of its VAE cut by resolution, or in one piece."""
        return ("decode_fine_step" if cut else "decode_step") in self.per_pixel


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """Bytes on the card during one call of a stage."""

    stage: str
    weights: int
    activations: int
    state_in: int  # none at a shot's start
    state_out: int  # in a place of its own: what is still read cannot be written over
    ends: int  # what else goes in and comes out

    @property
    def working(self) -> int:
        """All but the weights, which stay."""
        return self.activations + self.state_in + self.state_out + self.ends


def find_network(model: str) -> Network:
    """The network of `model`; ModelError where no law of it is known."""
    if model not in NETWORKS:
        raise ModelError(
            f"how much memory {model} needs on a GPU is not known: choose one of "
            f"{', '.join(NETWORKS)}"
        )
    return NETWORKS[model]


def stage_needs(network: Network, stage: str, canvas: Canvas, precision: str) -> Needs:
    """What `stage` needs at `canvas`; of a VAE stage, fp8 is fp16: only linears are in fp8."""
    if stage.startswith("generator"):
        return _generator_needs(network, stage, canvas, precision)
    return _vae_needs(network, stage, canvas, precision)


def _generator_needs(network: Network, stage: str, canvas: Canvas, precision: str) -> Needs:
    config, size = network.generator, BYTES[precision]
    latents = 1 if stage == "generator_image" else canvas.latents
    pixels = canvas.width * canvas.height
    tokens = latents * pixels // TOKEN**2
    rotations = 2 * 2 * tokens * config.head_width // 2 * size  # cos, sin; plain, shifted windows
    orders = 2 * 2 * tokens * INDEX  # there and back
    parameters = generator_parameters(config, network.text_tokens)
    return Needs(
        stage=stage,
        weights=parameters * WEIGHT_BYTES[precision] + rotations + orders,
        activations=int(network.per_token * tokens * size),
        state_in=0,
        state_out=0,
        ends=3 * config.latent_channels * latents * (pixels // LATENT**2) * size,
    )


def _vae_needs(network: Network, stage: str, canvas: Canvas, precision: str) -> Needs:
    verb, half, call = split_stage(stage)
    size, pixels = BYTES[precision], canvas.width * canvas.height
    every = vae_layers(network.vae, verb, call)
    layers = [layer for layer in every if not half or layer.fine == (half == "fine")]
    state = sum(layer.state * (pixels // layer.scale**2) for layer in layers) * size
    return Needs(
        stage=stage,
        weights=sum(layer.parameters for layer in layers) * size,
        activations=int(_vae_activations(network, stage, canvas) * size),
        state_in=state if call == "step" else 0,
        state_out=0 if call == "image" else state,
        ends=_ends(network.vae, stage, canvas) * size,
    )


def _vae_activations(network: Network, stage: str, canvas: Canvas) -> float:
    """Elements: the fullest moment is at the highest resolution, or while latent pixels attend."""
    _, half, call = split_stage(stage)
    pixels = canvas.width * canvas.height
    fullest = network.per_pixel[stage] * pixels * (canvas.step if call == "step" else 1)
    if half == "fine":  # one frame, and no attention
        return network.per_pixel[stage] * pixels
    frames = _latents(stage, canvas)
    attending = SCORES * score_elements(stage, canvas) + network.beside_scores * frames * pixels
    return max(fullest, attending)


def score_elements(stage: str, canvas: Canvas) -> int:
    """Elements of the scores in the VAE's attention: each latent pixel of a frame looks at each."""
    return _latents(stage, canvas) * (canvas.width * canvas.height // LATENT**2) ** 2


def _latents(stage: str, canvas: Canvas) -> int:
    _, _, call = split_stage(stage)
    return {"start": START_LATENTS, "step": canvas.step, "image": 1}[call]


def _ends(config: VaeConfig, stage: str, canvas: Canvas) -> int:
    """Elements of a VAE stage's input and output, its state apart."""
    _, half, call = split_stage(stage)
    pixels = canvas.width * canvas.height
    latents = _latents(stage, canvas)
    frames = {"start": START_FRAMES, "step": FRAMES_PER_LATENT * canvas.step, "image": 1}[call]
    picture = config.image_channels * pixels
    latent = config.latent_channels * pixels // LATENT**2
    if not half:
        return frames * picture + latents * latent
    features = feature_elements(config, stage, canvas)
    return picture + features if half == "fine" else frames * features + latents * latent


def feature_elements(config: VaeConfig, stage: str, canvas: Canvas) -> int:
    """Elements of one frame between the halves of a VAE that is cut by resolution."""
    channels = config.channels[0 if stage.startswith("encode") else 2]
    return channels * canvas.width * canvas.height // 4  # half the rows and columns


def split_stage(stage: str) -> tuple[Verb, Half, Call]:
    """`decode_fine_step` as decode, fine, step; the half is empty where the VAE is whole."""
    verb, *half, call = stage.split("_")
    return cast(tuple[Verb, Half, Call], (verb, half[0] if half else "", call))


# The most that the log said at any size, the last digit rounded up. A generator is built with three
# of its blocks; whole, the 3B's activations at 720p were 21 % less.
_SEEDVR2_VAE = {
    "encode_start": 2844.0,
    "encode_step": 1936.0,
    "encode_image": 775.1,
    "encode_fine_start": 768.0,
    "encode_fine_step": 768.0,
    "encode_coarse_start": 1400.4,
    "encode_coarse_step": 1152.0,
    "decode_start": 5229.3,
    "decode_step": 4113.0,
    "decode_image": 838.0,
    "decode_fine_start": 1425.5,
    "decode_fine_step": 1553.5,
    "decode_coarse_start": 828.6,
    "decode_coarse_step": 772.9,
}
_NANO_VAE = {
    "encode_image": 121.0,
    "encode_fine_start": 96.0,
    "encode_fine_step": 96.0,
    "encode_coarse_start": 0.0,  # its attention is the fullest moment
    "encode_coarse_step": 161.0,
    "decode_image": 177.0,
    "decode_fine_start": 193.5,
    "decode_fine_step": 193.5,
    "decode_coarse_start": 0.0,
    "decode_coarse_step": 0.0,
}


def _seedvr2(generator: GeneratorConfig, per_token: float) -> Network:
    return Network(
        generator=generator,
        vae=VAE,
        text_tokens=58,
        per_token=per_token,
        per_pixel=_SEEDVR2_VAE,
        beside_scores=65.0,
    )


NETWORKS = {
    "seedvr2-3b": _seedvr2(GENERATOR_3B, 39850.5),
    "seedvr2-7b": _seedvr2(GENERATOR_7B, 38643.5),
    "seedvr2-7b-sharp": _seedvr2(GENERATOR_7B, 38643.5),
    "nano": Network(
        generator=GENERATOR_NANO,
        vae=VAE_NANO,
        text_tokens=8,
        per_token=20330.0,
        per_pixel=_NANO_VAE,
        beside_scores=5.2,
    ),
}
