"""The peak of host memory of a run on the CPU, told before it starts.

Stages take turns, so the peak is the largest stage's working memory on top of what stays: the
program, the VAE's state and the frames in flight. Working memory and state grow with the canvas:
so many bytes a padded pixel, measured per model (see `Law`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `doctor` asks for the memory where ONNX Runtime may be missing
    from vr_trt.runtime.model import Manifest

MIB = 1 << 20
PIXELS_PER_LATENT = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """Bytes of a run on ONNX Runtime's CPU provider, per pixel of the canvas if not said."""

    base: float  # interpreter, libraries, graphs and weights
    encode: float  # the fullest call of the encoder, with its input, output and states
    decode: float  # the fullest call of the decoder, likewise
    generator: float  # one window, for each latent of it
    encode_state: float  # between calls
    decode_state: float
    image: float  # the fullest stage of a single picture
    attention: float  # of the VAE, for each pair of latent pixels of a frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a run holds, in the units of the law."""

    canvas_pixels: int
    source_frame_bytes: int  # planes
    output_frame_bytes: int
    source_pixels: int
    window_latents: int
    chunk_latents: int  # of the largest VAE call
    frames_in_flight: int  # waiting for their latents to come back
    queued_frames: int  # each way
    video: bool  # False for a single image, which has no state


# Measured with `python -m vr_trt.bench.memory_law engines/nano`. Its graphs attend block by block.
NANO = Law(
    base=159 * MIB,
    encode=2230,
    decode=3718,
    generator=238,
    encode_state=508,
    decode_state=857,
    image=549,
    attention=0,
)
# What whole runs take beyond their fullest stage, since stages share one arena that is never packed:
# measured 1.11 to 1.18 from 360p to 1080p (bench/results/cpu-nano-profiles.json).
ARENA = 1.25


def law_of(manifest: "Manifest") -> Law | None:
    """The law that a model's manifest states, or the embedded model's; None where none is known."""
    if manifest.memory:
        return Law(**manifest.memory)
    return NANO if manifest.model == "nano" else None


def stage_bytes(law: Law, load: Load) -> dict[str, float]:
    """What is held while each stage runs, beside the program and the frames."""
    pixels = load.canvas_pixels
    states = (law.encode_state + law.decode_state) * pixels if load.video else 0.0
    picture, source = 4 * 3 * pixels, 4 * 3 * 4 * load.source_pixels
    ends = {"to_model": states + source + 5 * picture, "to_video": states + source + 13 * picture}
    # Half way through the VAE every latent pixel looks at every other: beside little else.
    attention = law.attention * (pixels / PIXELS_PER_LATENT) ** 2 * load.chunk_latents
    if not load.video:
        return ends | {"image": max(law.image * pixels, attention)}
    return ends | {
        "encode": max(law.encode * pixels, attention) + law.decode_state * pixels,
        "generator": states + law.generator * pixels * load.window_latents,
        "decode": max(law.decode * pixels, attention) + law.encode_state * pixels,
    }


def peak_bytes(law: Law, load: Load) -> int:
    """Bytes of host memory at the fullest moment of the run."""
    frames = (
        load.frames_in_flight + load.queued_frames
    ) * load.source_frame_bytes + load.queued_frames * load.output_frame_bytes
    return int(law.base + frames + ARENA * max(stage_bytes(law, load).values()))
