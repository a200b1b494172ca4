"""How well nano does on held-out clips: PSNR and SSIM of reconstruction, restoration and input.

    python -m vr_trt.export.nano.evaluate --weights export/nano/weights --work FOLDER [--json FILE]

The held-out clips have other pictures than training, degraded by the same kinds of things. The
bicubic input is what the tool would give without a network; restored is after the wavelet colour
correction, as the tool does it.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from vr_trt.export.config import GENERATOR_NANO, VAE_NANO
from vr_trt.export.nano.pool import PoolSpec, open_pool
from vr_trt.export.nano.train_generator import Restoration
from vr_trt.export.nano.train_together import recoloured
from vr_trt.export.vae import VideoVae, split_moments

Pictures = NDArray[np.float32]  # [T, H, W, 3] in 0..1
HELD_OUT = PoolSpec(seed=3, split="held-out", clips=32, frames=9, size=192)


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


def scores(ours: Pictures, sharp: Pictures) -> tuple[float, float]:
    """PSNR in dB and SSIM of a clip, each the mean over its frames."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    psnrs, ssims = [], []
    for frame, truth in zip(ours, sharp, strict=True):
        psnr = peak_signal_noise_ratio(truth, frame, data_range=1.0)
        ssim = structural_similarity(truth, frame, channel_axis=2, data_range=1.0)
        psnrs.append(min(60.0, psnr))
        ssims.append(ssim)
    return float(np.mean(psnrs)), float(np.mean(ssims))


def evaluate(folder: Path, work: Path, clips: int) -> dict[str, dict[str, float]]:
    """Mean and median scores over `clips` held-out clips, by what is compared to the sharp clip."""
    vae, restoration = load_nano(folder)
    pool = open_pool(work / "evaluation", HELD_OUT)
    found: dict[str, list[tuple[float, float]]] = {}
    for index in range(clips):
        sharp, degraded = (
            torch.from_numpy(side[index].copy()).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
            for side in (pool.sharp, pool.degraded)
        )
        ways: dict[str, Callable[[], Tensor]] = {
            "bicubic input": lambda degraded=degraded: degraded,  # type: ignore[misc]
            "restored": lambda degraded=degraded, index=index: restore(  # type: ignore[misc]
                vae, restoration, degraded, index
            ),
            "reconstructed": lambda sharp=sharp: reconstruct(vae, sharp),  # type: ignore[misc]
            "reconstructed picture": lambda sharp=sharp: reconstruct(vae, sharp[:, :, :1]),  # type: ignore[misc]
        }
        truth = to_pictures(sharp)
        for name, way in ways.items():
            out = to_pictures(way())
            found.setdefault(name, []).append(scores(out, truth[: len(out)]))
    return {name: _summary(np.array(values)) for name, values in found.items()}


def _summary(values: NDArray[np.float64]) -> dict[str, float]:  # [clips, 2]
    mean, median = values.mean(0), np.median(values, axis=0)
    pairs = {"psnr": mean[0], "ssim": mean[1], "psnr_median": median[0], "ssim_median": median[1]}
    return {name: round(float(value), 4) for name, value in pairs.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the held-out clips")
    parser.add_argument("--clips", type=int, default=HELD_OUT.clips)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = evaluate(options.weights, options.work, options.clips)
    for name, values in result.items():
        print(f"{name:22} " + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))
    text = json.dumps({"clips": options.clips, "scores": result}, indent=2)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
