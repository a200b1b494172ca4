"""Measure what a model's stages take on the CPU, and the memory law that follows.

    python -m vr_trt.bench.memory_law MODEL_FOLDER

Every call runs in a process of its own, whose peak is the system's own count. The last line is the
law as JSON: for the `memory` of the model's manifest, or for `NANO` in runtime/memory.py.
"""

import json
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vr_trt.runtime.generator_stage import GeneratorStage
from vr_trt.runtime.memory import Law
from vr_trt.runtime.model import Model
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.vae_stream import START_FRAMES, START_LATENTS, DecodeStream, EncodeStream

SIZES = ((640, 368), (960, 544))  # padded canvases of 16:9 at 360p and 540p
TINY = (64, 64)
LATENTS = 6  # of a generator window
CALLS = 3  # the start and two steps: from the second on, two states are held


def measure(folder: Path, stage: str, width: int, height: int) -> tuple[int, int]:
    """Peak bytes of this process after running `stage`, and bytes of the state it keeps."""
    model = Model(folder)
    latent, channels = (height // 8, width // 8), model.manifest.latent_channels
    if stage == "generator":
        GeneratorStage(model, 0).restore(0, np.zeros((1, channels, LATENTS, *latent), np.float32))
        return _peak(), 0
    if stage == "image":
        picture = EncodeStream(model, StatePool()).image(
            np.zeros((1, 3, 1, height, width), np.float32)
        )
        DecodeStream(model, StatePool()).image(GeneratorStage(model, 0).restore(0, picture))
        return _peak(), 0
    encodes = stage == "encode"
    stream = EncodeStream(model, StatePool()) if encodes else DecodeStream(model, StatePool())
    for call in range(CALLS):
        if encodes:
            frames = 4 if call else START_FRAMES
            stream.push(np.zeros((1, 3, frames, height, width), np.float32))
        else:
            latents = 1 if call else START_LATENTS
            stream.push(np.zeros((1, channels, latents, *latent), np.float32))
    return _peak(), stream.state_bytes


def _peak() -> int:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if sys.platform == "darwin" else 1024)


def measured_apart(folder: Path, stage: str, size: tuple[int, int]) -> tuple[int, int]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "vr_trt.bench.memory_law", str(folder), stage]
    run = subprocess.run([*command, *map(str, size)], check=True, capture_output=True, text=True)
    peak, state = json.loads(run.stdout)
    return peak, state


def law(folder: Path) -> Law:
    """The law of the model in `folder`: the larger figure of the two sizes for each term."""
    stages = ("encode", "decode", "generator", "image")
    base = max(measured_apart(folder, stage, TINY)[0] for stage in stages)
    per_pixel = dict.fromkeys(stages, 0.0)
    states = dict.fromkeys(stages, 0.0)
    for width, height in SIZES:
        for stage in stages:
            peak, state = measured_apart(folder, stage, (width, height))
            pixels = width * height
            per_pixel[stage] = max(per_pixel[stage], (peak - base) / pixels)
            states[stage] = max(states[stage], state / pixels)
            print(f"{stage} {width}x{height}: {peak >> 20} MiB, state {state >> 20} MiB")
    return Law(
        base=base,
        encode=round(per_pixel["encode"]),
        decode=round(per_pixel["decode"]),
        generator=round(per_pixel["generator"] / LATENTS),
        encode_state=round(states["encode"]),
        decode_state=round(states["decode"]),
        image=round(per_pixel["image"]),
        attention=2 * 4,  # scores and their softmax, in float32
    )


def main() -> None:
    """Print the law of the model folder named on the command line."""
    if len(sys.argv) == 5:
        folder, stage, width, height = sys.argv[1:]
        print(json.dumps(measure(Path(folder), stage, int(width), int(height))))
        return
    if len(sys.argv) != 2:
        sys.exit("usage: python -m vr_trt.bench.memory_law MODEL_FOLDER")
    print(json.dumps(asdict(law(Path(sys.argv[1])))))


if __name__ == "__main__":
    main()
