"""Compiles the VAE's kernels ahead, in several processes, into the cache in which Triton looks.

    python -m vr_trt.bench.warm [--processes N]

A case of the benchmark compiles some fifty kernels of a stage one after the other, which takes a
minute and more. Here every kernel is launched once, on what happens to lie in memory, by stages
so small that all processes have room; their kernels are those of the benchmark's sizes, a test
says. What fails here is named, and is met again where it is measured.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from vr_trt.bench.cases.vae import PARTS, Part
from vr_trt.engines.triton_compile import distinct_launches
from vr_trt.engines.triton_vae import Call, TritonCoderStage
from vr_trt.engines.vae_layers import pack_coder
from vr_trt.export.config import VAE
from vr_trt.export.fp8_vae import fp8_layers
from vr_trt.export.vae import Decoder, Encoder, Form
from vr_trt.kernels.tuning import capability_of

# Rows and columns for those of `cases.vae.SIZES`: as many of their halves are multiples of 16, which
# Triton compiles apart.
SIZES = {"720p": (144, 256), "1080p": (64, 128)}
FORM = Form(taps=3, folded=True, stream=True)
FRAMES = {"encode": {"start": 5, "step": 4}, "decode": {"start": 2, "step": 1}}
PIECE = 4  # kernels of a task: a stage is made for each
PROCESSES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Which of the VAE's stages, and how large."""

    part: Part
    call: Call
    size: tuple[int, int]  # rows and columns of a picture
    fp8: bool

    def on(self, device: str, chip: int) -> TritonCoderStage:
        """It, with weights and pictures of whatever lay in memory; on "meta" only shapes."""
        with torch.device("meta"):
            network = (Decoder if self.part == "decode" else Encoder)(VAE, FORM).bfloat16()
        network = network.to_empty(device=device).requires_grad_(False)
        amax = dict.fromkeys(fp8_layers(network), 1.0) if self.fp8 else None
        layers, states = pack_coder(network, amax, chip), dict[str, torch.Tensor]()
        scale = 8 if self.part == "decode" else 1
        rows, columns = (side // scale for side in self.size)
        frames = FRAMES[self.part]
        first = TritonCoderStage(network, layers, "start", (frames["start"], rows, columns), states)
        if self.call == "start":
            return first
        return TritonCoderStage(network, layers, "step", (frames["step"], rows, columns), states)


Task = tuple[Stage, list[int]]  # numbers of launches


def tasks(chip: int) -> Iterator[Task]:
    """Every kernel of the benchmark's stages once, a few a task."""
    seen = set[object]()
    for size in SIZES.values():
        for fp8 in (False, True):
            for part in PARTS:
                for call in ("start", "step"):
                    stage = Stage(part=part, call=call, size=size, fp8=fp8)
                    found = distinct_launches(stage.on("meta", chip).launches, chip)
                    new = [number for key, number in found.items() if key not in seen]
                    seen |= set(found)
                    yield from ((stage, new[i : i + PIECE]) for i in range(0, len(new), PIECE))


def launch(task: Task, device: str, chip: int) -> None:
    """Compile a task's kernels by launching them."""
    stage, numbers = task
    launches = stage.on(device, chip).launches
    for number in numbers:
        launches[number]()


def main() -> None:
    """The command; fails where a kernel does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--processes", type=int, default=min(PROCESSES, os.cpu_count() or 1))
    given = parser.parse_args()
    device = torch.device("cuda")
    chip = capability_of(device)
    failed = 0
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        work = {pool.submit(launch, task, "cuda", chip): task for task in tasks(chip)}
        for done in as_completed(work):
            error = done.exception()
            if error is not None:
                failed += 1
                print(f"{work[done]}: {type(error).__name__}: {error}"[:500], file=sys.stderr)
    print(f"{sum(len(numbers) for _, numbers in work.values())} kernels, {failed} tasks failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
