"""Which tensors leave fp16's range, and what 16 bits cost: of a model, or of golden networks.

    python -m vr_trt.bench.half_range [--model nano] [--golden FOLDER] [--size 192x128] [--all]

A model restores nine frames of the demo clip's scene, so that every network runs on what the one
before it gave; golden networks run on their vectors. Prints two tables. Published weights take
--generator-file and --vae-file, or those that were pulled.
"""

import argparse
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vr_trt.bench.demo_scene import Scene, draw
from vr_trt.export.causal import Stream
from vr_trt.export.config import generator_from_reference, vae_from_reference
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.folded_generator import StaticGenerator
from vr_trt.export.golden import read_json, read_tensors, relative_rms
from vr_trt.export.half_range import LARGEST_FP16, Kind, Rounding, fitting_stream, is_stream
from vr_trt.export.models import find_model_files
from vr_trt.export.vae import STREAM, VIDEO

FRAMES = 9
WIDE: dict[str, tuple[Kind, ...]] = {
    "all in 16 bits": (),
    "norms wide": ("norm",),
    "and softmax: as exported": ("norm", "softmax"),
    "and what lies between norms": ("norm", "softmax", "stream"),
}
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """One network and what it was given."""

    name: str
    network: nn.Module
    given: tuple[Tensor, ...]
    streams: bool  # takes a causal state as well

    def run(self, dtype: torch.dtype | None = None, wide: tuple[Kind, ...] = ()) -> Rounding:
        """The rounding and, in `output`, its result; weights are rounded as tensors are."""
        network = self.network
        if dtype is not None:
            network = copy.deepcopy(network).to(dtype).float()
        rounding = Rounding(network, dtype, wide)
        rounding.run(*self.given, *([Stream()] if self.streams else []))
        return rounding


def model_studies(name: str, files: tuple[Path | None, Path | None], size: str) -> Iterator[Study]:
    """Encoder, generator and decoder of a model on nine frames."""
    model = find_model_files(name, *files)
    width, height = (int(side) for side in size.split("x"))
    scene = Scene(width=width, height=height, frames=FRAMES)
    frames = torch.stack([torch.from_numpy(picture) for picture in draw(scene)])
    x = 2 * frames.permute(3, 0, 1, 2)[None] - 1
    weights = model.load_vae()
    encoder = Study(
        name=f"{name} encoder",
        network=fold_encoder(model.vae, weights, VIDEO),
        given=(x,),
        streams=True,
    )
    yield encoder
    latent = encoder.run().output
    grid = (latent.shape[2], latent.shape[3] // 2, latent.shape[4] // 2)
    folded = fold_generator(model.generator, model.load_generator(), model.load_text())
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    generator = Study(
        name=f"{name} generator",
        network=StaticGenerator(folded, grid),
        given=(noise, latent),
        streams=False,
    )
    yield generator
    yield Study(
        name=f"{name} decoder",
        network=fold_decoder(model.vae, weights, VIDEO),
        given=(generator.run().output,),
        streams=True,
    )


def golden_studies(folder: Path) -> Iterator[Study]:
    """The golden VAE on its longest clip, and every golden generator on nine frames."""
    config = vae_from_reference(read_json(folder / "vae_cases.json")["params"])
    weights, cases = (
        read_tensors(folder / f"vae_tiny_{x}.safetensors") for x in ("weights", "cases")
    )
    encoder, decoder = (fold(config, weights, VIDEO) for fold in (fold_encoder, fold_decoder))
    latent = cases["t13.z"] * config.scaling
    for name, network, given in (
        ("encoder", encoder, cases["t13.x"]),
        ("decoder", decoder, latent),
    ):
        yield Study(name=f"golden {name}", network=network, given=(given,), streams=True)
    case = read_tensors(folder / "dit_input_t9.safetensors")
    T, h, w = case["vid_shape"].flatten().tolist()
    video = case["vid"].view(T, h, w, -1).permute(3, 0, 1, 2)[None]
    for name, listed in read_json(folder / "dit_cases.json")["configs"].items():
        generator = generator_from_reference(listed["params"])
        tensors = read_tensors(folder / f"dit_{name}_weights.safetensors")
        folded = fold_generator(generator, tensors, case["txt"])
        yield Study(
            name=f"golden {name}",
            network=StaticGenerator(folded, (T, h // 2, w // 2)),
            given=(video[:, :16], video[:, 16:32]),
            streams=False,
        )


def range_row(study: Study, ran: Rounding) -> str:
    """The largest tensor of a network, of all and of those between norms."""
    name, largest = max(ran.largest.items(), key=lambda item: item[1])
    stream = max(value for key, value in ran.largest.items() if is_stream(key))
    fits = f"{fitting_stream(stream, STREAM):.3g}" if study.streams else ""
    return f"| {study.name} | `{name}` | {largest:.4g} | {LARGEST_FP16 / largest:.3g} | {fits} |"


def error_rows(study: Study, wanted: Tensor) -> Iterator[str]:
    """The output's relative error with each choice of what is kept wide."""
    for name, dtype in DTYPES.items():
        errors = []
        for wide in WIDE.values():
            error = relative_rms(study.run(dtype, wide).output, wanted)
            errors.append(f"{error:.2e}" if error < float("inf") else "overflow")
        yield f"| {study.name} | {name} | {' | '.join(errors)} |"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="nano, or a published one whose weights are here")
    parser.add_argument("--generator-file", type=Path)
    parser.add_argument("--vae-file", type=Path)
    parser.add_argument("--golden", type=Path, help="a folder laid out as tests/golden is")
    parser.add_argument("--size", default="192x128", help="of the frames: multiples of 16")
    parser.add_argument("--all", action="store_true", help="every tensor, not only the largest")
    given = parser.parse_args()
    studies: list[Study] = []
    if given.model:
        files = given.generator_file, given.vae_file
        studies += model_studies(given.model, files, given.size)
    if given.golden:
        studies += golden_studies(given.golden)
    ranges = [study.run() for study in studies]
    print("| network | largest tensor | its size | fp16 reaches, times | `stream` for fp16 |")
    print("|---|---|--:|--:|--:|")
    for study, ran in zip(studies, ranges, strict=True):
        print(range_row(study, ran))
    print("\n| network | | " + " | ".join(WIDE) + " |\n|---|---|" + "--:|" * len(WIDE))
    for study, ran in zip(studies, ranges, strict=True):
        for row in error_rows(study, ran.output):
            print(row, flush=True)
    if given.all:
        for study, ran in zip(studies, ranges, strict=True):
            for name, value in ran.largest.items():
                print(
                    f"{value:12.5g} {LARGEST_FP16 / max(value, 1e-30):10.3g}  {study.name} {name}"
                )


if __name__ == "__main__":
    main()
