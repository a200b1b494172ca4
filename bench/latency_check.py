"""Whether what shall be timed is right: every network against the plain one, at the same size.

    python -m vr_trt.bench.latency_check JOB

Each network gets the plain one's input, so what is wrong is named: the encoder the clip's first
frames (a shot's start and one step), the generator one window, the decoder a start and a step. The
error is the relative rms, which must be within the precision's limit; NaN is not.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vr_trt.bench.latency_worker import Job
from vr_trt.engines.profiles import FRAMES_PER_LATENT, find_profile
from vr_trt.errors import UsageError, VrTrtError
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.counted import counted
from vr_trt.runtime.generator_stage import GeneratorStage
from vr_trt.runtime.model import KNOWN_MODELS, Model
from vr_trt.runtime.noise import window_noise
from vr_trt.runtime.onnxruntime_session import OrtOptions
from vr_trt.runtime.pixel_stages import Picture, PixelStages
from vr_trt.runtime.reader import Reader, probe
from vr_trt.runtime.serving import Networks, Serving, Wanted
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.vae_stream import (
    START_FRAMES,
    START_LATENTS,
    DecodeStream,
    EncodeStream,
    is_cut,
    latents_per_step,
)

if TYPE_CHECKING:
    from vr_trt.bench.plain_networks import PlainNetworks

# Of the relative rms. Weights of the model that ships are stored in fp16 after folding, so its fp32
# is not nearer than that; the other limits are of the same kind for what rounds in every layer.
LIMITS = {"fp32": 2e-3, "fp16": 2e-2, "bf16": 8e-2, "fp8": 2e-1}
SEED = 0
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What goes into each network, and what the plain one makes of it."""

    x: Floats  # [1, 3, 5 + 4k, H, W]
    latent: Floats  # [1, C, 2 + k, h, w]
    window: Floats  # [1, C, T, h, w]
    restored: Floats  # of the window
    frames: Floats  # of the latent


def make_reference(plain: "PlainNetworks", x: Floats, latents: int) -> Reference:
    """The plain networks on `x` and on a window of `latents` latents, which repeat the clip's."""
    import torch

    def host(tensor: torch.Tensor) -> Floats:
        return tensor.float().cpu().numpy()

    with torch.inference_mode():
        latent = plain.encode(plain.on_device(torch.from_numpy(x)))
        turns = -(-latents // latent.shape[2])
        window = latent.repeat(1, 1, turns, 1, 1)[:, :, :latents].contiguous()
        _, channels, _, h, w = latent.shape
        noise = torch.from_numpy(window_noise(SEED, 0, latents, (h, w), channels))
        restored = plain.restore(plain.on_device(noise), window)
        frames = plain.decode(latent)
    return Reference(
        x=x,
        latent=host(latent),
        window=host(window),
        restored=host(restored),
        frames=host(frames),
    )


def errors(model: Model, wanted: Reference) -> dict[str, float]:
    """Relative rms of each network of `model`."""
    import torch

    from vr_trt.export.golden import relative_rms

    def off(ours: Floats, theirs: Floats) -> float:
        return relative_rms(torch.from_numpy(ours), torch.from_numpy(theirs))

    encode, decode = EncodeStream(model, StatePool()), DecodeStream(model, StatePool())
    latent = [
        encode.push(wanted.x[:, :, :START_FRAMES]),
        encode.push(wanted.x[:, :, START_FRAMES:]),
    ]
    restored = GeneratorStage(model, SEED).restore(0, wanted.window)
    frames = [
        np.array(decode.push(np.ascontiguousarray(part)))
        for part in np.split(wanted.latent, [START_LATENTS], axis=2)
    ]
    return {
        "encoder": off(np.concatenate(latent, 2), wanted.latent),
        "generator": off(restored - wanted.window, wanted.restored - wanted.window),
        "decoder": off(np.concatenate(frames, 2), wanted.frames),
    }


def verdict(found: Mapping[str, float], precision: str) -> dict[str, Any]:
    """`state` is ok or wrong; NaN is wrong."""
    limit = LIMITS[precision]
    wrong = [name for name, error in found.items() if not error <= limit]
    return {
        "state": "wrong" if wrong else "ok",
        "against": "the plain networks in PyTorch",
        "limit": limit,
        "errors": {name: error if np.isfinite(error) else None for name, error in found.items()},
        "wrong": wrong,
    }


def unchecked(why: str) -> dict[str, Any]:
    """The verdict where nothing can be compared."""
    return {"state": "not checked", "why": why}


def check(job: Job) -> dict[str, Any]:
    """The verdict on what `job` would time, and the `work` of its stages if it can be counted.

    VrTrtError where it cannot run at all.
    """
    info, profile = probe(Path(job.clip)), find_profile(job.profile)
    wanted = Wanted(model=job.model, profile=profile, backend=job.backend, precision=job.precision)
    networks = Networks(wanted, OrtOptions())
    serving = networks.find(canvas(info.width, info.height, profile.short_side))
    plain = _plain(networks.name)
    model = networks.open(serving)
    step = latents_per_step(model, profile.latents_per_step)
    if isinstance(plain, str):
        return unchecked(plain) | {"work": {}}
    source = Picture(width=info.width, height=info.height, pixel=info.pixel)
    pixels = PixelStages(source, source, serving.canvas, "none")
    with Reader(Path(job.clip), info) as reader:
        frames = list(islice(reader, START_FRAMES + FRAMES_PER_LATENT * step))
    if len(frames) < START_FRAMES + FRAMES_PER_LATENT * step:
        raise UsageError(
            f"{job.clip} has {counted(len(frames), 'frame')}: give a clip of a few more"
        )
    reference = make_reference(plain, pixels.to_model(frames), profile.window_latents)
    del plain  # its memory is needed
    precision = serving.selection.precision
    cut = any(is_cut(model, verb) for verb in ("encode", "decode"))
    return verdict(errors(model, reference), precision) | {
        "work": _work(networks.name, serving, profile.window_latents, step, cut)
    }


def _work(name: str, serving: Serving, latents: int, step: int, cut: bool) -> dict[str, Any]:
    """Operations and bytes of each stage by its name."""
    from vr_trt.bench.stage_work import stage_work
    from vr_trt.export.stages import StageShape

    height, width = serving.canvas.padded_h, serving.canvas.padded_w
    shape = StageShape(height=height, width=width, latents=latents, step=step)
    found = stage_work(name, shape, serving.selection.precision, cut=cut)
    return {stage: asdict(work) for stage, work in found.items()}


def _plain(name: str) -> "PlainNetworks | str":
    """The plain networks of that name, on a GPU if PyTorch sees one; or why there are none."""
    if name not in KNOWN_MODELS:
        return f"{name} is none of the models whose plain networks are known"
    try:
        import torch

        from vr_trt.bench.plain_networks import PlainNetworks
        from vr_trt.export.models import find_model_files
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed: pip install 'vr-trt[export]'"
    torch.set_num_threads(OrtOptions().session_options().intra_op_num_threads)
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return PlainNetworks(find_model_files(name), device=device)
    except VrTrtError as error:
        return str(error)


if __name__ == "__main__":
    try:
        print(json.dumps(check(Job(**json.loads(sys.argv[1])))))
    except VrTrtError as error:
        sys.exit(f"vr-trt: {error}")
