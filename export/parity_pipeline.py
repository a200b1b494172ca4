"""The whole chain of `pipe_*.safetensors`: pixels in, pixels out. See `parity`."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vr_trt.export.clip import crop_to_unit, pad_frames, resize_to_area
from vr_trt.export.config import generator_from_reference, vae_from_reference
from vr_trt.export.diffusion import Sampling, condition, sample, shifted_timestep
from vr_trt.export.generator import Generator
from vr_trt.export.golden import Case, load_network, read_json, read_tensors, relative_rms
from vr_trt.export.vae import VideoVae, split_moments

LEVEL = re.compile(r"cns([\d.]+)\.(\w+)")  # one step at a condition noise
MANY_STEPS = re.compile(r"ms(\d+)_cfg([\d.]+)\.(\w+)")  # many steps with guidance
CHAIN = {"vae_in_cthw", "latent_mode_thwc", "noise", "aug_noise", "txt"}  # what it starts from
V1_CONDITION_NOISE = 0.1  # what the many-step vectors were made with


def pipeline_cases(folder: Path) -> Iterator[Case]:
    """Every case of every pipeline file that has its networks in the folder."""
    path = folder / "pipe_cases.json"
    if not path.is_file():
        return
    listed = read_json(path)
    for file in sorted(folder.glob("pipe_*.safetensors")):
        given = read_tensors(file)
        yield from _pixels(file.stem, given, listed["res_h"] * listed["res_w"])
        networks = _networks(folder, listed["dit"].split()[0], listed["vae"].split()[0])
        if networks and given.keys() >= CHAIN:
            yield from _chain(file.stem, given, *networks, listed["scaling_factor"])


def _networks(folder: Path, generator: str, vae: str) -> tuple[Generator, VideoVae] | None:
    files = folder / f"dit_{generator}_weights.safetensors", folder / f"{vae}_weights.safetensors"
    tables = folder / "dit_cases.json", folder / "vae_cases.json"
    if not all(path.is_file() for path in (*files, *tables)):
        return None
    params = read_json(tables[0])["configs"][generator]["params"]
    first = load_network(Generator(generator_from_reference(params)), files[0])
    second = load_network(VideoVae(vae_from_reference(read_json(tables[1])["params"])), files[1])
    assert isinstance(first, Generator) and isinstance(second, VideoVae)
    return first, second


def _pixels(name: str, given: dict[str, Tensor], area: int) -> Iterator[Case]:
    if "video_u8_tchw" not in given:
        return
    resized = resize_to_area(given["video_u8_tchw"].float() / 255, area)
    if "resized" in given:
        yield Case(f"{name} resized", relative_rms(resized, given["resized"]))
    if "vae_in_cthw" in given:
        ready = pad_frames(crop_to_unit(resized.clamp(0, 1))).mul(2).sub(1).transpose(0, 1)
        yield Case(f"{name} vae_in", relative_rms(ready, given["vae_in_cthw"]))


def _chain(
    name: str, given: dict[str, Tensor], generator: Generator, vae: VideoVae, scaling: float
) -> Iterator[Case]:
    mean, _ = split_moments(vae.encode(given["vae_in_cthw"][None]))
    latent = _channel_last(mean) * scaling
    yield Case(f"{name} latent", relative_rms(latent, given["latent_mode_thwc"]))
    text = given["txt"], given.get("txt_neg")
    for key, theirs in given.items():
        if one := LEVEL.fullmatch(key):
            level, sampling = float(one[1]), Sampling(condition_noise=float(one[1]))
        elif many := MANY_STEPS.fullmatch(key):
            level = V1_CONDITION_NOISE
            sampling = Sampling(steps=int(many[1]), guidance=float(many[2]), condition_noise=level)
        else:
            continue
        if sampling.guidance != 1 and text[1] is None:
            continue
        what = key.rpartition(".")[2]
        if what == "t":  # the shifted noise level of the condition
            _, h, w, c = latent.shape
            ours = torch.tensor([shifted_timestep(1000 * level, (h, w, c)) if level else 0.0])
        else:
            noised = condition(latent, given["aug_noise"], level)
            ours = _stage(what, generator, vae, (given["noise"], noised), text, sampling, scaling)
        yield Case(f"{name} {key}", relative_rms(ours, theirs))


def _stage(
    what: str,
    generator: Generator,
    vae: VideoVae,
    start: tuple[Tensor, Tensor],  # noise and condition
    text: tuple[Tensor, Tensor | None],
    sampling: Sampling,
    scaling: float,
) -> Tensor:
    """One golden tensor of the chain: `cond`, `pred`, `x0` or `decoded_cthw`."""
    if what == "cond":
        return start[1]
    if what == "pred":
        return generator(torch.cat(start, -1), text[0], torch.tensor(1000.0)).flatten(0, 2)
    restored = sample(generator, *start, text, sampling)
    if what == "x0":
        return restored
    return vae.decode((restored / scaling).permute(3, 0, 1, 2).unsqueeze(0))[0]


def _channel_last(latent: Tensor) -> Tensor:
    """[1, c, T, h, w] to [T, h, w, c]."""
    return latent[0].permute(1, 2, 3, 0)
