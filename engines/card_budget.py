"""The memory law summed up over a run: what a card must hold at the fullest moment.

A run takes its stages in turn. All weights stay on the card, and beside them, at the fullest moment,
one stage's activations, its state twice (what it reads and what it writes) and its ends, and the
other stages' states. The VAE cut by resolution needs less (exact, and nothing is moved), and so do
engines whose weights the library streams. This is of networks that TensorRT runs; `engines.triton_law`
is of the others.
"""

from collections.abc import Collection
from dataclasses import dataclass

from vr_trt.engines.cache import Canvas
from vr_trt.engines.memory_law import (
    FRAMES_PER_LATENT,
    START_FRAMES,
    Needs,
    Network,
    feature_elements,
    score_elements,
    stage_needs,
)

# Not measured, for want of a card: the driver's context, libraries and compiled kernels.
CONTEXT_BYTES = 700 << 20
PICTURES = 13  # fp32 RGB pictures at the fullest moment of the way out, as on the CPU
STREAMED = 2  # blocks of the generator on the card at once: one computes, the next arrives


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How TensorRT's networks keep a run's memory down."""

    precision: str = "fp16"  # of the generator; the VAE's is fp16 where this is fp8
    cut: bool = False
    streamed: bool = False  # the generator's weights, over the bus for every window
    starts_stay: bool = False  # engines of a shot's first call are kept: nothing is opened later

    def __str__(self) -> str:
        words = [self.precision, "VAE cut" if self.cut else "VAE whole"]
        words += ["weights streamed"] * self.streamed
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """A run's memory on the card."""

    stages: dict[str, int]  # bytes at the fullest moment of each

    @property
    def peak(self) -> int:
        """Bytes at the fullest moment of all."""
        return max(self.stages.values())

    @property
    def fullest(self) -> str:
        """The stage of that moment."""
        return max(self.stages, key=lambda stage: self.stages[stage])


def video_stages(*, cut: bool) -> list[str]:
    """The stages of a video, in the order of a shot's first frames."""
    halves = ("_fine", "_coarse") if cut else ("",)
    encode = [f"encode{half}_{call}" for half in halves for call in ("start", "step")]
    decode = [f"decode{half}_{call}" for half in halves[::-1] for call in ("start", "step")]
    return [*encode, "generator", *decode]


def budget(
    network: Network, canvas: Canvas, settings: Settings, only: Collection[str] | None = None
) -> Budget:
    """What restoring a video at `canvas` takes on the card: all stages, or `only` some."""
    needs = {
        stage: stage_needs(network, stage, canvas, settings.precision)
        for stage in video_stages(cut=settings.cut)
        if only is None or stage in only
    }
    weights = _resident_weights(network, needs, settings)
    found = {}
    for stage, need in needs.items():
        rest = _resting_states(needs, stage)
        found[stage] = weights + need.working + rest + _chunk(network, stage, canvas, settings)
    found["to_video"] = weights + _resting_states(needs, "") + picture_bytes(canvas)
    return Budget(stages={s: CONTEXT_BYTES + n for s, n in found.items()})


def picture_bytes(canvas: Canvas) -> int:
    """Of the pictures on the way out."""
    return PICTURES * 4 * 3 * canvas.width * canvas.height


def _resident_weights(network: Network, needs: dict[str, Needs], settings: Settings) -> int:
    """A start's engine goes when its step's comes, unless it stays."""
    total = 0
    for stage, need in needs.items():
        if stage == "generator":
            blocks = network.generator.layers
            total += (
                need.weights * min(STREAMED, blocks) // blocks
                if settings.streamed
                else need.weights
            )
        elif stage.endswith("_step"):
            start = needs[stage.replace("_step", "_start")].weights
            both = need.weights + start
            total += both if settings.starts_stay else max(need.weights, start)
    return total


def _resting_states(needs: dict[str, Needs], stage: str) -> int:
    """States of the other parts while `stage` runs; nothing was decoded before encoding starts."""
    part = stage.rpartition("_")[0]
    total = 0
    for other, need in needs.items():
        if not other.endswith("_step") or other.rpartition("_")[0] == part:
            continue
        if stage.startswith("encode") and stage.endswith("start") and other.startswith("decode"):
            continue
        total += need.state_out
    return total


def _chunk(network: Network, stage: str, canvas: Canvas, settings: Settings) -> int:
    """Bytes of the other frames' features while the fine half takes or gives one."""
    if "_fine_" not in stage:
        return 0
    frames = START_FRAMES if stage.endswith("start") else FRAMES_PER_LATENT * canvas.step
    size = 4 if settings.precision == "fp32" else 2
    return (frames - 1) * feature_elements(network.vae, stage, canvas) * size


def largest_tensor(network: Network, canvas: Canvas, *, cut: bool) -> int:
    """Elements of the largest tensor of a video's VAE stages."""
    pixels = (canvas.width + 2) * (canvas.height + 2)  # padded for its convolution
    frames = FRAMES_PER_LATENT * canvas.step
    # Full resolution, the widest convolution: two frames of the past, and this call's.
    fine = network.vae.channels[1] * pixels * (2 + (1 if cut else max(START_FRAMES, frames)))
    scores = max(score_elements(s, canvas) for s in ("decode_start", "decode_step"))
    return max(fine, scores)
