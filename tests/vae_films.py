"""A coder of the `triton` backend over two shots, in small: its stages, and what comes call by call."""

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from tests.networks import loud_weights, normal
from torch import Tensor

from vr_trt.engines.triton_vae import Call, TritonCoderStage
from vr_trt.engines.vae_layers import pack_coder
from vr_trt.export.config import VaeConfig
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.fp8_vae import Coder
from vr_trt.export.vae import VIDEO

Kind = Literal["encoder", "decoder"]
KINDS: tuple[Kind, ...] = ("encoder", "decoder")
CALLS: tuple[Call, ...] = ("start", "step", "step", "start")  # two shots, on the same states
SIDES = {"encoder": (24, 40), "decoder": (3, 5)}  # rows and columns of what comes


def small_coder(kind: Kind, dtype: torch.dtype, config: VaeConfig, device: str = "cpu") -> Coder:
    """A folded one with weights of which all matter."""
    fold = fold_encoder if kind == "encoder" else fold_decoder
    return fold(config, loud_weights(config), VIDEO, dtype).to(device)


def clips(kind: Kind, like: Tensor) -> Iterator[Tensor]:
    """What comes with each of `CALLS`: two latents or five frames, then one or four."""
    for seed, call in enumerate(CALLS):
        frames = {"encoder": (5, 4), "decoder": (2, 1)}[kind][call == "step"]
        yield normal(1, like.shape[1], frames, *SIDES[kind], seed=seed).to(like.device, like.dtype)


class Film:
    """A coder's two stages and their states; whatever an arena held before a call is NaN."""

    def __init__(self, plain: Coder, amax: Mapping[str, float] | None = None) -> None:
        self._plain, self._layers = plain, pack_coder(plain, amax)
        self._stages: dict[Call, TritonCoderStage] = {}
        self.states: dict[str, Tensor] = {}

    def run(self, call: Call, x: Tensor) -> Tensor:
        """What `call` makes of x."""
        if call not in self._stages:
            frames, height, width = x.shape[2:]
            self._stages[call] = TritonCoderStage(
                self._plain, self._layers, call, (frames, height, width), self.states
            )
        stage = self._stages[call]
        stage.arena.memory.fill_(255)  # NaN in every precision
        came, result = ("x", "latent") if "x" in stage.inputs else ("latent", "x")
        stage.inputs[came].copy_(x)
        stage.run()
        return stage.outputs[result].clone()
