"""What E4M3 convolutions would cost the VAE in quality, each half of it, against another seed.

    python -m vr_trt.bench.fp8_vae_gate [CLIP] [--model nano] [--out FILE]

Windows of the clip (the demo clip is made if none is given) are restored whole: encoded, through the
generator, decoded. The first calibrates both halves; the others are judged by their decoded frames,
against fp32: with the encoder in E4M3, with the decoder, with both, and, as a yardstick, wide with
another seed of the noise. The decoder, which is most of the work, passes if it is nearer than that in
every window; the encoder, if it is, and both together are where the decoder passed. The arithmetic of
the kernels is emulated in PyTorch; nothing here runs on a GPU. JSON is the last line; kept with
--out, it lets the triton backend build the halves that passed (`vr-trt engines build --backend
triton --option fp8_vae=FILE`).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vr_trt.bench.clip_windows import PEAK, ClipShot, Pixels, clip_shots, demo_clip
from vr_trt.bench.machine import command_line, describe
from vr_trt.bench.picture_measures import psnr
from vr_trt.bench.quality_network import folded
from vr_trt.bench.whole_file import write_json
from vr_trt.errors import UsageError, VrTrtError
from vr_trt.export.models import ModelFiles, find_model_files

SEED, OTHER_SEED = 0, 1
Psnr = Mapping[str, float]  # "encoder", "decoder", "both": in E4M3; "other_seed"


def judge(shots: Sequence[ClipShot], files: ModelFiles) -> dict[str, Any]:
    """The verdict on both halves, from every shot but the first, which calibrates.

    UsageError if there is only one.
    """
    if len(shots) < 2:
        raise UsageError("one window to calibrate on and none to judge: give a longer clip")
    networks = folded(files)
    amax, wide = networks.magnitudes(shots[0].x, SEED), networks.chain()
    ways = {half: networks.e4m3({half: amax[half]}) for half in amax}
    ways["both"] = networks.e4m3(amax)
    rows: list[dict[str, Any]] = []
    for shot in shots[1:]:
        wanted = wide.run(shot.x, SEED)
        psnr = {way: _psnr(chain.run(shot.x, SEED), wanted) for way, chain in ways.items()}
        psnr["other_seed"] = _psnr(wide.run(shot.x, OTHER_SEED), wanted)
        rows.append({"clip": shot.clip, "first_frame": shot.first, "psnr": psnr})
    return {
        "model": files.name,
        "weights": files.sha256()[files.vae_file.name],
        "passed": verdicts([row["psnr"] for row in rows]),
        "amax": amax,
        "windows": rows,
    }


def verdicts(windows: Sequence[Psnr]) -> dict[str, bool]:
    """Which halves are nearer to the wide network than another seed, in every window."""

    def nearer(way: str) -> bool:  # which NaN is not
        return all(psnr[way] > psnr["other_seed"] for psnr in windows)

    decoder = nearer("decoder")
    return {
        "encoder": nearer("encoder") and (not decoder or nearer("both")),
        "decoder": decoder,
    }


def _psnr(x: Pixels, wanted: Pixels) -> float:
    return round(psnr(x, wanted, PEAK), 2)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--short-side", type=int, default=144, help="pixels")
    parser.add_argument("--latents", type=int, default=6, help="of a window")
    parser.add_argument("--windows", type=int, default=3, help="at most")
    parser.add_argument("--out", type=Path, help="where to keep the JSON")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            frames = (4 * given.latents - 3) * given.windows
            clip = given.clip or demo_clip(Path(folder), frames)
            shots = clip_shots(clip, given.short_side, given.latents, given.windows)
            verdict = judge(shots, find_model_files(given.model))
    except VrTrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    result = {"machine": describe(), "command": command_line(), "gate": verdict}
    if given.out:
        write_json(given.out, result)
    print(json.dumps(result))
    return 0 if any(verdict["passed"].values()) else 3


if __name__ == "__main__":
    sys.exit(main())
