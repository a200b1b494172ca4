"""What stages of the `triton` backend hold on a card, before any is built; no torch.

Every buffer follows from sizes, so `bench/triton_memory.py` laid the stages out as shapes and drew a
line for each count of bytes: so much at any size, so much for each pixel with its border (of a
generator: for each token of a window). A test holds the lines to stages that are laid out at other
sizes and for other chips. Where engines are built, a run counts what their manifests say instead.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vr_trt.engines.cache import Canvas
from vr_trt.engines.memory_law import NETWORKS, TOKEN
from vr_trt.engines.selection import needed_stages
from vr_trt.engines.triton_card import CardBytes, Together, add_up
from vr_trt.errors import ModelError

COUNTS = ("own", "arena", "states", "weights")
_TABLE = Path(__file__).with_name("triton_memory.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How networks run on `triton`."""

    precision: str = "bf16"  # of the generator; the VAE's is fp16 where this is fp8
    fp8_vae: bool = False  # the VAE's blocks in E4M3, both halves


def triton_stage(model: str, stage: str, canvas: Canvas, way: Way) -> CardBytes:
    """What one stage holds; ModelError for a model of which nothing is known."""
    fp8 = way.precision == "fp8" if stage.startswith("generator") else way.fp8_vae
    row = _rows().get((find_key(model, stage), stage, fp8))
    if row is None:
        raise ModelError(f"what {stage} of {model} holds on a GPU is not known: build it, and see")
    many = units(stage, canvas)
    found = {count: round(fixed + each * many) for count, (fixed, each) in row.items()}
    return CardBytes(**found)


def triton_together(model: str, canvas: Canvas, way: Way) -> Together:
    """What a run of all stages holds at once."""
    stages = needed_stages(cut=False)
    return add_up((s, way.precision, triton_stage(model, s, canvas, way)) for s in stages)


def units(stage: str, canvas: Canvas) -> int:
    """What the bytes of `stage` grow with: pixels with their border, or tokens."""
    if not stage.startswith("generator"):
        return (canvas.width + 2) * (canvas.height + 2)
    latents = 1 if stage == "generator_image" else canvas.latents
    return latents * (canvas.width // TOKEN) * (canvas.height // TOKEN)


def find_key(model: str, stage: str) -> str:
    """The first model that has the same network for `stage`; ModelError for an unknown one."""
    if model not in NETWORKS:
        raise ModelError(
            f"what {model} holds on a GPU is not known: choose one of {', '.join(NETWORKS)}"
        )
    part = "generator" if stage.startswith("generator") else "vae"
    mine = getattr(NETWORKS[model], part)
    return next(name for name, other in NETWORKS.items() if getattr(other, part) == mine)


@cache
def _rows() -> dict[tuple[str, str, bool], dict[str, tuple[int, float]]]:
    listed = tomllib.loads(_TABLE.read_text(encoding="utf-8"))["row"]
    return {
        (row["network"], row["stage"], row["fp8"]): {count: tuple(row[count]) for count in COUNTS}
        for row in listed
    }
