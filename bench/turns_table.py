"""What taking turns on the card spares and moves: the table in docs/engines.md, counted without a GPU.

    python -m vr_trt.bench.turns_table 1080p 720p

Every stage of the published 3B on the triton backend is laid out as shapes, tuned for sm_90, in bf16,
16:9; what it would hold is added up as a run adds up its engines.
"""

import sys
from dataclasses import replace

import torch

from vr_trt.engines.cache import Canvas
from vr_trt.engines.cards import GIB, wide_canvas
from vr_trt.engines.profiles import FRAMES_PER_LATENT, find_profile
from vr_trt.engines.rota import GENERATOR, Rota, rotas
from vr_trt.engines.selection import needed_stages
from vr_trt.engines.triton_card import CardBytes, add_up
from vr_trt.engines.triton_memory import card_bytes
from vr_trt.engines.triton_plan import TritonPlan
from vr_trt.engines.triton_stages import empty_coder, empty_generator, lay_out
from vr_trt.export.config import VAE
from vr_trt.export.models import PUBLISHED
from vr_trt.runtime.vae_stream import START_FRAMES, START_LATENTS

MODEL, TEXT, SM, LATENT = "seedvr2-3b", 58, 90, 8


def stage_bytes(stage: str, canvas: Canvas) -> CardBytes:
    """Of one stage, laid out as shapes."""
    verb, _, call = stage.partition("_")
    latents = {"start": START_LATENTS, "step": canvas.step, "image": 1, "": canvas.latents}[call]
    frames = {"start": START_FRAMES, "step": FRAMES_PER_LATENT * latents}.get(call, 1)
    sizes = (1, VAE.latent_channels, latents, canvas.height // LATENT, canvas.width // LATENT)
    if verb == "encode":
        sizes = (1, 3, frames, canvas.height, canvas.width)
    generator = PUBLISHED[MODEL][0]
    config = generator if verb == GENERATOR else VAE
    plan = TritonPlan(stage=stage, config=config, precision="bf16", sizes=sizes, state={})
    if verb == GENERATOR:
        text = torch.empty(TEXT, generator.width, device="meta")
        network: torch.nn.Module = empty_generator(replace(plan, state={"text": text}))
    else:
        network = empty_coder(plan)
    return card_bytes(lay_out(replace(plan, state=network.to(plan.dtype).state_dict()), SM))


def rows(name: str) -> list[tuple[Rota, float, float, float]]:
    """Of a profile: who takes turns, GiB of the card, page-locked GiB, GB over the bus a frame."""
    profile = find_profile(name)
    canvas = wide_canvas(profile)
    held = add_up((s, MODEL, stage_bytes(s, canvas)) for s in needed_stages(cut=False))
    frames = FRAMES_PER_LATENT * (canvas.latents - profile.overlap)
    return [
        (rota, (held.bytes - rota.spared) / GIB, rota.mirrors / GIB, rota.moved / frames / 1e9)
        for rota in rotas(held.parts)
    ]


def main(names: list[str]) -> None:
    """Print the table of the profiles called `names`."""
    print(f"| take turns | {' | '.join(f'{n}: GiB | locked | GB a frame' for n in names)} |")
    print("|---" + "|--:" * 3 * len(names) + "|")
    for found in zip(*map(rows, names), strict=True):
        who = ", ".join(found[0][0].sizes) or "nobody"
        cells = (f"{card:.1f} | {host:.1f} | {moved:.2f}" for _, card, host, moved in found)
        print(f"| {who} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
