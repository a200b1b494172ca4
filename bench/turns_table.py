"""What taking turns on the card spares and moves: the table in docs/engines.md, counted without a GPU.

    python -m vr_trt.bench.turns_table 1080p 720p

The published 3B on the triton backend in bf16, 16:9: what its stages hold (`engines.triton_law`) is
added up as a run adds up its engines.
"""

import sys

from vr_trt.engines.cards import GIB, wide_canvas
from vr_trt.engines.profiles import FRAMES_PER_LATENT, find_profile
from vr_trt.engines.rota import Rota, rotas
from vr_trt.engines.triton_law import Way, triton_together

MODEL = "seedvr2-3b"


def rows(name: str) -> list[tuple[Rota, float, float, float]]:
    """Of a profile: who takes turns, GiB of the card, page-locked GiB, GB over the bus a frame."""
    profile = find_profile(name)
    canvas = wide_canvas(profile)
    held = triton_together(MODEL, canvas, Way())
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
