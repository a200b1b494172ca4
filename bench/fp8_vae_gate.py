"""What E4M3 convolutions would cost the VAE's decoder in quality, against another seed.

    python -m vr_trt.bench.fp8_vae_gate [CLIP] [--short-side 144] [--latents 6] [--out FILE]

Latents of the clip (the demo clip is made if none is given) are restored by nano's generator with two
seeds. The decoder is calibrated on the first window and judged on the others: its frames in E4M3
against fp32, and, as a yardstick, those of the other seed. The arithmetic of the kernels is
emulated in PyTorch; nothing here runs on a GPU. JSON is the last line; kept with --out, it lets the
triton backend build the decoder so (`vr-trt engines build --backend triton --option
fp8_decoder=FILE`).
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vr_trt.bench.clip_windows import ClipWindow, clip_windows
from vr_trt.bench.machine import describe
from vr_trt.errors import UsageError, VrTrtError
from vr_trt.export.causal import Stream
from vr_trt.export.fold_vae import fold_decoder
from vr_trt.export.fp8_vae import Coder, fp8_layers, observe, quantise_coder
from vr_trt.export.models import find_model_files
from vr_trt.export.vae import VIDEO
from vr_trt.runtime.generator_stage import GeneratorStage
from vr_trt.runtime.model import Model, find_model

PEAK = 2.0  # frames go from -1 to 1
SEEDS = 0, 1


def judge(windows: list[ClipWindow], model: Model) -> dict[str, Any]:
    """PSNR of the decoder's variants against fp32, for every window but the first.

    UsageError if there is only one.
    """
    if len(windows) < 2:
        raise UsageError("one window to calibrate on and none to judge: give a longer clip")
    files = find_model_files("nano")
    wide = fold_decoder(files.vae, files.load_vae(), VIDEO)
    restored = [[_restored(model, window, seed) for seed in SEEDS] for window in windows]
    amax = observe(wide, [restored[0][0]], cell=1)  # also channels that no matrix unit takes
    narrow = quantise_coder(wide, amax)
    rows: list[dict[str, Any]] = []
    for window, (latents, other) in zip(windows[1:], restored[1:], strict=True):
        frames = _frames(wide, latents)
        found = {
            "fp8": _frames(narrow, latents),
            "other_seed": _frames(wide, other),
        }
        psnr = {name: _psnr(x, frames) for name, x in found.items()}
        rows.append({"clip": window.clip, "first_latent": window.first, "psnr": psnr})
    passed = all(row["psnr"]["fp8"] > row["psnr"]["other_seed"] for row in rows)
    layers = len(fp8_layers(wide, cell=1))
    return {
        "model": "nano",
        "weights": files.sha256()[files.vae_file.name],
        "passed": passed,
        "quantised_layers": layers,
        "amax": amax,
        "windows": rows,
    }


@torch.no_grad()
def _frames(decoder: Coder, latents: Tensor) -> Tensor:
    """What a viewer sees of a window of latents."""
    return decoder(latents, Stream()).clamp(-1, 1)


def _restored(model: Model, window: ClipWindow, seed: int) -> Tensor:
    restored = GeneratorStage(model, seed).restore(window.first, window.latents)
    return torch.from_numpy(restored)


def _psnr(x: Tensor, wanted: Tensor) -> float:
    error = float((x.double() - wanted.double()).square().mean())
    return round(10 * math.log10(PEAK**2 / error), 2) if error > 0 else math.inf


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--short-side", type=int, default=144)
    parser.add_argument("--latents", type=int, default=6, help="of a window")
    parser.add_argument("--windows", type=int, default=2, help="at most")
    parser.add_argument("--out", type=Path, help="where to keep the JSON")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            clip = given.clip or _demo(Path(folder, "demo.mp4"), given.latents * given.windows)
            model = Model(find_model("nano"))
            windows = clip_windows(clip, model, given.short_side, given.latents, given.windows)
            verdict = judge(windows, model)
    except VrTrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    words = [Path(word).name for word in sys.argv[1:]]  # whose folders are nobody's business
    result = {"machine": describe(), "command": " ".join(words), "gate": verdict}
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0 if verdict["passed"] else 3


def _demo(path: Path, latents: int) -> Path:
    from vr_trt.bench.demo_clip import make
    from vr_trt.bench.demo_scene import Scene

    make(path, Scene(frames=4 * latents - 3))
    return path


if __name__ == "__main__":
    sys.exit(main())
