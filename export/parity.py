"""Compare our networks with vectors made by the reference: `python -m vr_trt.export.parity DIR`.

DIR is laid out as tests/golden is (network spec §10), with any configurations, sizes, prompts and
timesteps, and may hold any part of the files. One line a case with its relative rms error; exit
code 1 if one is above 2e-5, 2 if there is nothing to compare. Everything runs in fp32; the
`out_attn_bf16` vectors are of another arithmetic and are no cases.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from vr_trt.errors import UsageError, VrTrtError
from vr_trt.export.colour_fix import AdaIn, Wavelet
from vr_trt.export.config import generator_from_reference, vae_from_reference
from vr_trt.export.diffusion import shifted_timestep, timesteps
from vr_trt.export.generator import Generator
from vr_trt.export.golden import (
    Case,
    load_network,
    read_json,
    read_tensors,
    recorded,
    relative_rms,
)
from vr_trt.export.keys import expected_generator, expected_vae
from vr_trt.export.parity_pipeline import pipeline_cases
from vr_trt.export.vae import VideoVae, split_moments
from vr_trt.kernels.windows import partition

TOLERANCE = 2e-5


def key_cases(folder: Path) -> Iterator[Case]:
    """Keys and shapes of `keys_*.json`: how many differ."""
    for path in sorted(folder.glob("keys_*.json")):
        params, listed = (read_json(path)[part] for part in ("params", "keys"))
        if "block_out_channels" in params:
            ours = expected_vae(vae_from_reference(params))
        else:
            ours = expected_generator(generator_from_reference(params))
        theirs = {name: tuple(shape) for name, shape in listed.items()}
        wrong = [k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k)]
        yield Case(f"{path.stem}: {len(ours)} keys", float(len(wrong)))


def window_cases(folder: Path) -> Iterator[Case]:
    """The window lists of `windows.json`: how many windows differ."""
    path = folder / "windows.json"
    if not path.is_file():
        return
    methods = {"720pwin_by_size_bysize": False, "720pswin_by_size_bysize": True}
    for case in read_json(path)["cases"]:
        t, h, w = case["size"]
        for method, shifted in methods.items():
            if method in case:
                ours = [[list(span) for span in each] for each in partition((t, h, w), shifted)]
                wrong = sum(a != b for a, b in zip(ours, case[method], strict=False))
                wrong += abs(len(ours) - len(case[method]))
                kind = "shifted" if shifted else "plain"
                yield Case(f"windows {t}x{h}x{w} {kind}: {len(ours)}", float(wrong))


def generator_cases(folder: Path) -> Iterator[Case]:
    """The generator's outputs, and its intermediates where they are given."""
    path = folder / "dit_cases.json"
    if not path.is_file():
        return
    for name, listed in read_json(path)["configs"].items():
        weights, outputs = folder / f"dit_{name}_weights.safetensors", f"dit_{name}_out.safetensors"
        if not weights.is_file():
            continue
        config = generator_from_reference(listed["params"])
        out = read_tensors(folder / outputs) if (folder / outputs).is_file() else {}
        for case in listed["cases"]:
            given = folder / f"dit_input_{case}.safetensors"
            inside = folder / f"dit_{name}_{case}_intermediates.safetensors"
            wanted = {"out": out[f"{case}.out"]} if f"{case}.out" in out else {}
            wanted = (read_tensors(inside) if inside.is_file() else {}) | wanted
            if given.is_file() and wanted:
                network = load_network(Generator(config), weights)
                ours = _generate(network, read_tensors(given), set(wanted))
                for key, value in wanted.items():
                    yield _compared(f"generator {name} {case} {key}", ours.get(key), value)


def _compared(name: str, ours: Tensor | None, theirs: Tensor) -> Case:
    """A case; one that this network has no such tensor for has failed."""
    if ours is None:
        return Case(f"{name}: no such layer", float("inf"))
    return Case(name, relative_rms(ours, theirs))


def _generate(network: nn.Module, given: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Run a case; the tensors by the golden files' names (`block3.attn.vid` and so on)."""
    modules = {key: _module_of(key) for key in wanted - {"out"}}
    outputs = recorded(network, {module for module, _ in modules.values()})
    T, h, w = given["vid_shape"].flatten().tolist()
    video = given["vid"].view(T, h, w, -1)
    ours = {"out": network(video, given["txt"], given["timestep"]).flatten(0, 2)}
    for key, (module, part) in modules.items():
        if module in outputs:
            value = outputs[module] if part is None else outputs[module][part]
            ours[key] = value.unsqueeze(0) if key == "emb_in" else value
    return ours


def _module_of(key: str) -> tuple[str, int | None]:
    """The submodule behind a golden intermediate, and which of its outputs."""
    *path, last = key.removeprefix("block").split(".")
    if last not in ("vid", "txt"):
        return key, None
    if path == ["vid_in"]:
        return "vid_in", None
    return ".".join(["blocks", *path]), 0 if last == "vid" else 1


def vae_cases(folder: Path) -> Iterator[Case]:
    """The VAE's moments and pictures, and its intermediates where they are given."""
    path = folder / "vae_cases.json"
    if not path.is_file():
        return
    listed = read_json(path)
    for weights in sorted(folder.glob("vae_*_weights.safetensors")):
        name = weights.name.removesuffix("_weights.safetensors")
        vectors = folder / f"{name}_cases.safetensors"
        tensors = read_tensors(vectors) if vectors.is_file() else {}
        for case in listed["cases"]:
            mine = {k.removeprefix(f"{case}."): v for k, v in tensors.items() if
                    k.startswith(f"{case}.")}  # fmt: skip
            inside = folder / f"{name}_{case}_intermediates.safetensors"
            wanted = read_tensors(inside) if inside.is_file() else {}
            network = load_network(VideoVae(vae_from_reference(listed["params"])), weights)
            outputs = recorded(network, set(wanted))
            for key, value in _vae(network, mine).items():
                if key in mine:
                    yield Case(f"{name} {case} {key}", relative_rms(value, mine[key]))
            ran = {
                side for side, start in {"encoder": "x", "decoder": "z"}.items() if start in mine
            }
            for key, value in wanted.items():
                if key.partition(".")[0] in ran:
                    yield _compared(f"{name} {case} {key}", outputs.get(key), value)


def _vae(network: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    assert isinstance(network, VideoVae)
    ours: dict[str, Tensor] = {}
    if "x" in given:
        moments = network.encode(given["x"])
        mean, logvar = split_moments(moments)
        std = torch.exp(0.5 * logvar)
        ours |= {"moments": moments, "mean": mean, "logvar": logvar, "std": std}
    if "z" in given:
        ours["dec"] = network.decode(given["z"])
    return ours


def schedule_cases(folder: Path) -> Iterator[Case]:
    """The timesteps and their shift in `pipe_cases.json`."""
    path = folder / "pipe_cases.json"
    if not path.is_file():
        return
    listed = read_json(path)
    if "timesteps_1step" in listed:
        theirs = torch.tensor(listed["timesteps_1step"])
        yield Case("timesteps of one step", relative_rms(torch.tensor(timesteps(1)), theirs))
    for row in listed.get("timestep_transform", []):
        t, h, w = row["latent_thw"]
        ours = shifted_timestep(row["t_in"], (t, h, w))
        error = relative_rms(torch.tensor([ours]), torch.tensor([row["t_out"]]))
        yield Case(f"shifted timestep {row['t_in']:g} of {t}x{h}x{w}", error)


def colour_cases(folder: Path) -> Iterator[Case]:
    """The colour corrections of `colorfix.safetensors`."""
    path = folder / "colorfix.safetensors"
    if not path.is_file():
        return
    given = read_tensors(path)
    for name, fix in {"wavelet": Wavelet(), "adain": AdaIn()}.items():
        if name in given:
            ours = fix(given["content"], given["style"])
            yield Case(f"colour {name}", relative_rms(ours, given[name]))


def all_cases(folder: Path) -> Iterator[Case]:
    """Every case that `folder` holds, one after the other."""
    parts = (key_cases, window_cases, schedule_cases, colour_cases)
    for cases in (*parts, generator_cases, vae_cases, pipeline_cases):
        yield from cases(folder)


@torch.inference_mode()
def check(folder: Path) -> int:
    """Print a line a case; the exit code."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give one laid out as tests/golden is")
    count = failed = 0
    for name, error in all_cases(folder):
        good = error <= TOLERANCE  # False for NaN, too
        print(f"{'ok  ' if good else 'FAIL'} {error:9.2e}  {name}", flush=True)
        count, failed = count + 1, failed + (not good)
    if not count:
        raise UsageError(f"{folder} holds none of the golden files; see tests/golden")
    print(f"{count} cases, {failed} above {TOLERANCE:g}")
    return 1 if failed else 0


def main() -> None:
    """The command."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m vr_trt.export.parity DIR")
    try:
        code = check(Path(sys.argv[1]))
    except VrTrtError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    raise SystemExit(code)


if __name__ == "__main__":
    main()
