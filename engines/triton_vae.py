"""The folded VAE on our kernels, for one size: channels last, fixed buffers, states in place.

A stage is laid out once, as a list of launches on buffers in an arena (`engines.vae_walk`); running
it is going through the list, which a CUDA graph records. Every picture lies in its border of zeros,
and no launch writes there, so the border is made once in a run unless something else came to lie in
it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from vr_trt.engines.static_arena import Arena
from vr_trt.engines.vae_launches import Size
from vr_trt.engines.vae_layers import CoderLayers
from vr_trt.engines.vae_walk import Walk
from vr_trt.export.fp8_vae import Coder
from vr_trt.export.vae import Encoder
from vr_trt.kernels.tuning import capability_of

Call = Literal["image", "start", "step"]


class TritonCoderStage:
    """A `StaticStage`: one call of a coder on an input of one size.

    `x [1, 3, F, H, W]` to `latent [1, 16, T, h, w]`, or back, contiguous, in the arena; `state.*`
    and `next.*` are the same tensors. Stages may share `states`, which are made where they are
    missing; and, if they run one after the other, the memory of `arena`. Laid out in an arena
    without memory, a stage is shapes only: what it would launch, and what it would hold.
    """

    def __init__(
        self, network: Coder, layers: CoderLayers, call: Call, size: Size,
        states: dict[str, Tensor], arena: Arena | None = None,
    ) -> None:  # fmt: skip
        layers = _of_its_chip(layers)
        self.arena = arena or own_arena(network, layers, call, size)
        rehearsal = Arena()
        _walked(network, layers, call, size, {}, rehearsal)
        self.arena.follow(rehearsal.packed())
        walk, given, made = _walked(network, layers, call, size, states, self.arena)
        came, result = ("x", "latent") if isinstance(network, Encoder) else ("latent", "x")
        self.launches, self.used = walk.launches, frozenset(walk.used)
        self._inputs, self._outputs = {came: given}, {result: made}
        names = network.states if call != "image" else []
        if call == "step":
            self._inputs |= {f"state.{name}": states[name] for name in names}
        self._outputs |= {f"next.{name}": states[name] for name in names}

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        return self._outputs

    @torch.no_grad()
    def run(self) -> None:
        for launch in self.launches:
            launch()


def own_arena(network: Coder, layers: CoderLayers, call: Call, size: Size) -> Arena:
    """An arena with the memory that this one stage needs, on the layers' device."""
    shapes = TritonCoderStage(network, _of_its_chip(layers), call, size, {}, Arena())
    return Arena(torch.empty(shapes.arena.size, dtype=torch.uint8, device=layers.device))


def _of_its_chip(layers: CoderLayers) -> CoderLayers:
    """Tuned for the layers' own device where that is a GPU: shapes alone would be as interpreted."""
    if layers.chip is None and layers.device.type == "cuda":
        return replace(layers, chip=capability_of(layers.device))
    return layers


def _walked(
    network: Coder, layers: CoderLayers, call: Call, size: Size,
    states: dict[str, Tensor], arena: Arena,
) -> tuple[Walk, Tensor, Tensor]:  # fmt: skip
    """The way through the network, its input and its result, in `arena`."""
    walk = Walk(network, layers, states, arena, starts=call != "step")
    given = arena.take((1, network.conv_in.in_channels, *size), layers.dtype)
    return walk, given, walk.coder(network, given)
