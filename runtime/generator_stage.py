"""The generator over windows of latents: its noise, and window tables for graphs of any size."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from vr_trt.kernels.rope import Rope
from vr_trt.kernels.windows import any_size_tables
from vr_trt.runtime.model import Model
from vr_trt.runtime.noise import window_noise
from vr_trt.runtime.session import Array, Tensor, call, host_floats

PATCH = 2  # latents across one token


class GeneratorStage:
    """Restores windows of latents with noise of one seed."""

    def __init__(self, model: Model, seed: int) -> None:
        self._model = model
        self._seed = seed
        self._tables: dict[tuple[int, int, int], dict[str, Array]] = {}

    def restore(self, start: int, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Latents start … of a shot, [1, C, T, h, w], restored."""
        _, channels, frames, height, width = latents.shape
        # Graphs of one size have a generator of their own for a picture's single latent.
        picture = frames == 1 and "generator_image" in self._model.manifest.stages
        stage = "generator_image" if picture else "generator"
        session = self._model.session(stage)
        noise = window_noise(self._seed, start, frames, (height, width), channels)
        inputs: dict[str, Array | Tensor] = {"noise": noise, "latent": latents}
        if "plain.index" in session.inputs:
            inputs |= self._tables_of((frames, height // PATCH, width // PATCH))
        return host_floats(call(session, inputs, stage)["restored"])

    def _tables_of(self, grid: tuple[int, int, int]) -> dict[str, Array]:
        """The tables of a token grid; one grid at a time is kept, a shot has no other."""
        if grid not in self._tables:
            manifest = self._model.manifest
            rope = cast(Rope, manifest.rope)
            self._tables = {
                grid: any_size_tables(grid, manifest.text_tokens, manifest.head_width, rope)
            }
        return self._tables[grid]
