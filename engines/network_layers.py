"""The layers of the deployed networks as plain sizes: what weighs, and what keeps a state.

Memory is planned where no PyTorch is installed, so this says once more, in numbers, what
`export/vae.py` and `export/folded_generator.py` build; a test holds both to each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vr_trt.export.config import GeneratorConfig, VaeConfig

Verb = Literal["encode", "decode"]
Call = Literal["start", "step", "image"]
_TEXT_ROTATION = 2  # cos and sin


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A convolution with the norm before it, or what else has weights."""

    fine: bool  # of the half that a VAE cut by resolution runs one frame a call
    parameters: int
    state: int = 0  # channels, times frames kept for the next call
    scale: int = 1  # pixels along one side of a picture for one of its own


def vae_layers(config: VaeConfig, verb: Verb, call: Call) -> list[Layer]:
    """The layers of `encode_*` or `decode_*` that `call` runs."""
    layers = _encoder(config, call) if verb == "encode" else _decoder(config, call)
    return list(layers)


def _encoder(config: VaeConfig, call: Call) -> Iterator[Layer]:
    widths = config.channels
    yield _conv(call, config.image_channels, widths[0], fine=True)
    for i, width in enumerate(widths):
        place = {"fine": i == 0, "scale": 2**i}
        for block in range(config.encoder_resnets):
            before = widths[max(i - 1, 0)] if block == 0 else width
            yield from _resnet(call, before, width, **place)
        if i < len(widths) - 1:
            taps = 3 if i and call != "image" else 1
            parameters = width * width * taps * 9 + width
            yield Layer(parameters=parameters, state=width * (taps == 3), **place)
    yield from _middle(call, widths[-1], 2 ** (len(widths) - 1))
    yield _norm(widths[-1])
    yield _conv(call, widths[-1], config.latent_channels, scale=2 ** (len(widths) - 1))


def _decoder(config: VaeConfig, call: Call) -> Iterator[Layer]:
    widths = config.channels[::-1]
    coarsest = 2 ** (len(widths) - 1)
    yield _conv(call, config.latent_channels, widths[0], scale=coarsest)
    yield from _middle(call, widths[0], coarsest)
    for i, width in enumerate(widths):
        place = {"fine": i >= 2, "scale": coarsest // 2**i}
        for block in range(config.decoder_resnets):
            before = widths[max(i - 1, 0)] if block == 0 else width
            yield from _resnet(call, before, width, **place)
        if i < len(widths) - 1:
            yield Layer(
                parameters=_upsample_parameters(call, width, i),
                state=0 if call == "image" else width * (1 if i < 2 else 2),
                **place,
            )
    yield _norm(widths[-1], fine=True)
    yield _conv(call, widths[-1], config.image_channels, fine=True)


def _conv(
    call: Call, before: int, width: int, *, fine: bool = False, scale: int = 1, taps: int = 3
) -> Layer:
    taps = 1 if call == "image" else taps
    return Layer(
        fine=fine,
        parameters=before * width * taps * 9 + width,
        state=before * (taps - 1),
        scale=scale,
    )


def _norm(width: int, *, fine: bool = False) -> Layer:
    return Layer(fine=fine, parameters=2 * width)


def _resnet(call: Call, before: int, width: int, *, fine: bool, scale: int) -> Iterator[Layer]:
    yield _norm(before, fine=fine)
    yield _conv(call, before, width, fine=fine, scale=scale)
    yield _norm(width, fine=fine)
    yield _conv(call, width, width, fine=fine, scale=scale)
    if before != width:
        yield Layer(fine=fine, parameters=before * width + width)


def _middle(call: Call, width: int, scale: int) -> Iterator[Layer]:
    for _ in range(2):
        yield from _resnet(call, width, width, fine=False, scale=scale)
    yield Layer(fine=False, parameters=4 * (width * width + width) + 2 * width)


def _upsample_parameters(call: Call, width: int, level: int) -> int:
    """Of the sub-pixel convolutions that `call` runs: a start has others for its first frames."""

    def sub_pixel(frames: int, taps: int) -> int:
        return 4 * frames * width * ((width + 1) * taps * 4 + 1)

    first, second, step = sub_pixel(1, 1), sub_pixel(2, 2), sub_pixel(2, 2)
    if call == "image":
        return first
    if level >= 2:
        return sub_pixel(1, 3)
    if call == "step":
        return step
    return first + second + (step if level else 0)  # two latents make three frames


def generator_parameters(config: GeneratorConfig, text_tokens: int) -> int:
    """Of the folded generator, its constant text included."""
    C, inner = config.width, config.heads * config.head_width
    hidden = config.mlp_width * (2 if config.mlp == "swiglu" else 1)

    def linear(before: int, width: int) -> int:
        return before * width + width

    branch = 2 * config.head_width + linear(C, 3 * inner) + linear(inner, C)
    branch += linear(C, hidden) + linear(config.mlp_width, C)
    keys_only = config.head_width + linear(C, 2 * inner)
    texts = sum(not config.shared(layer) for layer in range(config.layers - 1))
    ends = linear(8 * config.latent_channels, C) + linear(C, 4 * config.vid_out_channels)
    text = text_tokens * (C + _TEXT_ROTATION * config.head_width // 2)
    return (config.layers + texts) * branch + keys_only + ends + text
