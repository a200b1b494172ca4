"""How well nano does on held-out clips: PSNR, SSIM and flicker of restoration, input and others.

    python -m vr_trt.export.nano.evaluate --weights export/nano/weights --work FOLDER [--json FILE]

`held-out` clips have other pictures than training, and motions and damage that are drawn anew in
the same ways; `light damage` has such clips that are still good, which a restoration should leave
alone; `other damage` has ways that training never draws. The bicubic input is what the tool would
give without a network; sharpened is that, frame by frame; restored is after nano's colour
correction, as the tool does it; reconstructed is the sharp clip through the VAE.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from vr_trt.export.config import GENERATOR_NANO, VAE_NANO
from vr_trt.export.nano.data import Clip
from vr_trt.export.nano.network import Restoration, recoloured
from vr_trt.export.nano.other_damage import damage, make_other_clip
from vr_trt.export.nano.pool import PoolSpec, open_pool
from vr_trt.export.nano.scores import Pictures, flicker, likeness, motion, sharpened
from vr_trt.export.vae import VideoVae, split_moments

HELD_OUT = PoolSpec(seed=3, split="held-out", clips=32, frames=9, size=192, damage="any")
POOLS = {"held-out": HELD_OUT, "light damage": replace(HELD_OUT, seed=5, damage="light")}
OTHER_SEED = 4
Table = dict[str, dict[str, float]]  # way -> measure -> value


@dataclass(frozen=True, kw_only=True, slots=True)
class Set:
    """Some pairs of a kind; `size` in pixels."""

    name: str
    clips: int
    size: int


def load_nano(folder: Path) -> tuple[VideoVae, Restoration]:
    """The shipped nano in fp32, from `vae`, `generator` and `text` .safetensors in `folder`."""
    vae, restoration = VideoVae(VAE_NANO), Restoration(GENERATOR_NANO)
    parts = {part: load_file(folder / f"{part}.safetensors") for part in ("vae", "generator")}
    vae.load_state_dict({name: value.float() for name, value in parts["vae"].items()})
    state = {name: value.float() for name, value in parts["generator"].items()}
    restoration.generator.load_state_dict(state)
    text = load_file(folder / "text.safetensors")["text"]
    with torch.no_grad():
        restoration.text.copy_(text)
    return vae.eval(), restoration.eval()


def to_tensor(clip: Clip) -> Tensor:
    """uint8 [T, H, W, 3] to [1, 3, T, H, W] in -1..1."""
    return torch.from_numpy(clip.copy()).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def to_pictures(x: Tensor) -> Pictures:  # [1, 3, T, H, W] in -1..1
    """What a viewer sees of a network's output."""
    levels = ((x[0].clamp(-1, 1) + 1) * 127.5).round() / 255
    return levels.permute(1, 2, 3, 0).numpy()


def restore(vae: VideoVae, restoration: Restoration, x: Tensor, seed: int) -> Tensor:
    """The restored clip [1, 3, T, H, W] of a degraded one, colours corrected."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        latent = split_moments(vae.encode(x))[0][0].permute(1, 2, 3, 0) * vae.config.scaling
        restored = restoration(torch.randn(latent.shape, generator=draws), latent)
        out = vae.decode(restored.permute(3, 0, 1, 2)[None] / vae.config.scaling)
    return recoloured(out, x)


def reconstruct(vae: VideoVae, x: Tensor) -> Tensor:
    """The clip after encoder and decoder."""
    with torch.no_grad():
        return vae.decode(split_moments(vae.encode(x))[0])


def pairs(which: Set, work: Path) -> Iterator[tuple[Clip, Clip]]:
    """Sharp and degraded clips uint8 [9, size, size, 3] of a set."""
    if which.name in POOLS:
        pool = open_pool(work / f"evaluation, {which.name}", POOLS[which.name])
        yield from zip(pool.sharp[: which.clips], pool.degraded[: which.clips], strict=True)
        return
    for index in range(which.clips):
        rng = np.random.default_rng((OTHER_SEED, which.size, index))
        sharp = make_other_clip(rng, HELD_OUT.frames, which.size)
        yield sharp, damage(rng, sharp, index)


def evaluate(folder: Path, work: Path, which: Set) -> Table:
    """Mean and median scores over a set, by what is compared to the sharp clip."""
    vae, restoration = load_nano(folder)
    found: dict[str, list[tuple[float, float, float]]] = {}
    for index, (sharp, degraded) in enumerate(pairs(which, work)):
        x, truth = to_tensor(degraded), to_pictures(to_tensor(sharp))
        moved = motion(truth)
        ways = {
            "bicubic input": to_pictures(x),
            "sharpened input": sharpened(to_pictures(x)),
            "restored": to_pictures(restore(vae, restoration, x, index)),
            "reconstructed": to_pictures(reconstruct(vae, to_tensor(sharp))),
            "reconstructed picture": to_pictures(reconstruct(vae, to_tensor(sharp[:1]))),
        }
        for name, out in ways.items():
            still = len(out) == 1
            row = (*likeness(out, truth[: len(out)]), np.nan if still else flicker(out, moved))
            found.setdefault(name, []).append(row)
        found.setdefault("sharp", []).append((np.nan, np.nan, flicker(truth, moved)))
    return {name: _summary(rows) for name, rows in found.items()}


def _summary(rows: list[tuple[float, float, float]]) -> dict[str, float]:
    result = {}
    for measure, values in zip(("psnr", "ssim", "flicker"), zip(*rows, strict=True), strict=True):
        if not np.isnan(values).any():
            result[measure] = round(float(np.mean(values)), 4)
            result[f"{measure}_median"] = round(float(np.median(values)), 4)
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the held-out clips")
    parser.add_argument(
        "--clips", type=int, default=12, help="of each set; 4 of them at 360 pixels"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sets = (
        Set(name="held-out", clips=options.clips, size=HELD_OUT.size),
        Set(name="light damage", clips=options.clips, size=HELD_OUT.size),
        Set(name="other damage", clips=options.clips, size=HELD_OUT.size),
        Set(name="other damage, 360p", clips=-(-options.clips // 3), size=368),
    )
    result = {}
    for which in sets:
        table = evaluate(options.weights, options.work, which)
        result[which.name] = {"clips": which.clips, "scores": table}
        print(f"{which.name}, {which.clips} clips")
        for name, values in table.items():
            print(
                f"  {name:22} " + "  ".join(f"{key} {value:.3f}" for key, value in values.items())
            )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
