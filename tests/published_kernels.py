"""What the published VAE's stages launch, laid out as shapes, and what becomes of it on a chip."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

from vr_trt.engines.triton_compile import check_kernels, distinct_launches
from vr_trt.engines.triton_plan import DTYPES, TritonPlan
from vr_trt.engines.triton_stages import empty_coder, lay_out_coder
from vr_trt.export.config import VAE
from vr_trt.export.fp8_vae import fp8_layers
from vr_trt.export.vae import STREAM

PROCESSES = 2
FRAMES = {"start": (5, 2), "step": (4, 1), "image": (1, 1)}  # of x, and latents
Launches = list[partial[object]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stages:
    """All stages of the published VAE on a chip."""

    chip: int
    precision: str = "bf16"
    e4m3: bool = False  # every layer that may be, as the gate has it: not of pictures
    size: tuple[int, int] = (1080, 1920)

    def launches(self, *names: str) -> Launches:
        """Of those named, or of all."""
        calls = FRAMES.keys() - ({"image"} if self.e4m3 else set())
        names = names or tuple(f"{verb}_{call}" for verb in ("encode", "decode") for call in calls)
        return [launch for name in sorted(names) for launch in self._stage(name)]

    def distinct(self) -> Launches:
        """Of all, one for each kernel."""
        launches = self.launches()
        numbers = distinct_launches(launches, self.chip).values()
        return [launches[number] for number in numbers]

    def facts(self) -> Iterator[dict[str, Any]]:
        """What every kernel compiles to, in two processes."""
        spawn = get_context("spawn")
        with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
            yield from pool.map(self._share, range(PROCESSES))

    def _share(self, first: int) -> dict[str, Any]:
        return check_kernels(self.distinct()[first::PROCESSES], self.chip)

    def _stage(self, name: str) -> Launches:
        verb, call = name.split("_")
        (frames, latents), (height, width) = FRAMES[call], self.size
        x = (1, VAE.image_channels, frames, height, width)
        latent = (1, VAE.latent_channels, latents, height // 8, width // 8)
        plan = TritonPlan(
            stage=name, config=VAE, precision=self.precision,
            sizes=x if verb == "encode" else latent, state={}, stream=STREAM,
        )  # fmt: skip
        coder = empty_coder(plan).to(DTYPES[self.precision])
        amax = dict.fromkeys(fp8_layers(coder) if self.e4m3 else (), 7.0)
        plan = replace(plan, state=coder.state_dict(), amax=amax)
        return list(lay_out_coder(plan, self.chip).launches)
