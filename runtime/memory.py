"""The peak of host memory of a run on the CPU, before it starts.

Stages take turns, so the peak is the largest stage's working memory on top of what stays: the
program, the VAE's state and the frames in flight. Working memory and state grow with the canvas:
so many bytes a padded pixel, measured per model (see `Law`).
"""

from dataclasses import dataclass

from vr_trt.runtime.model import Manifest

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """Bytes of a run on ONNX Runtime's CPU provider: `base`, and the rest a pixel of the canvas."""

    base: float  # interpreter, libraries, graphs and weights
    encode: float  # one call of encode_start, its input and output included
    decode: float  # one call of decode_start, likewise
    generator: float  # one window, a latent of it
    state: float  # of encoder and decoder, between calls


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a run holds, in the units of the law."""

    canvas_pixels: int
    source_frame_bytes: int  # planes
    output_frame_bytes: int
    source_pixels: int
    window_latents: int
    frames_in_flight: int  # waiting for their latents to come back
    queued_frames: int  # each way
    video: bool  # False for a single image, which has no state


# Measured with bench/memory_law.py for the embedded model.
NANO = Law(base=300 * MIB, encode=3000, decode=4000, generator=100, state=600)


def law_of(manifest: Manifest) -> Law | None:
    """The law that a model's manifest states, or the embedded model's; None where none is known."""
    if manifest.memory:
        return Law(**manifest.memory)
    return NANO if manifest.model == "nano" else None


def stage_bytes(law: Law, load: Load) -> dict[str, float]:
    """Peak of each stage's own call."""
    pixels = load.canvas_pixels
    return {
        "to_model": 4 * 3 * (4 * load.source_pixels + 2 * pixels),
        "encode": law.encode * pixels,
        "generator": law.generator * pixels * load.window_latents,
        "decode": law.decode * pixels,
        "to_video": 4 * 3 * 8 * pixels,
    }


def peak_bytes(law: Law, load: Load) -> int:
    """Bytes of host memory at the fullest moment of the run."""
    frames = (
        load.frames_in_flight + load.queued_frames
    ) * load.source_frame_bytes + load.queued_frames * load.output_frame_bytes
    state = law.state * load.canvas_pixels if load.video else 0
    return int(law.base + state + frames + max(stage_bytes(law, load).values()))
