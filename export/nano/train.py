"""Train nano from nothing and write its weights: one command, resumable, seeded.

    python -m vr_trt.export.nano.train --work FOLDER --out export/nano/weights

FOLDER keeps the clips and the checkpoints (about 1.5 GB). Run again after an interruption, it goes
on where it was. On a GPU where PyTorch finds one, else on the CPU.
"""

import argparse
import os
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from vr_trt.export.nano.train_generator import Restoration
from vr_trt.export.nano.train_together import train_together
from vr_trt.export.vae import VideoVae


def write_weights(vae: VideoVae, restoration: Restoration, folder: Path) -> None:
    """Write `vae`, `generator` and `text` .safetensors in fp16, under the classes' own keys."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(vae.state_dict(), folder / "vae.safetensors")
    _write(restoration.generator.state_dict(), folder / "generator.safetensors")
    _write({"text": restoration.text.detach()}, folder / "text.safetensors")


def _write(state: dict[str, Tensor], path: Path) -> None:
    partial = path.with_suffix(".partial")
    halves = {name: value.half().contiguous().cpu() for name, value in state.items()}
    partial.write_bytes(save(halves))
    os.replace(partial, path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of pools and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder of the three weight files")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    nano = train_together(options.work)
    write_weights(nano.vae, nano.restoration, options.out)


if __name__ == "__main__":
    main()
