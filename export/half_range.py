"""Which tensors of a network leave fp16's range, and what rounding to 16 bits costs.

A network runs in fp32 while the result of every function is rounded to fp16 or bf16, but for the
kinds that are kept wide. That is what an engine of 16 bits does, whose products accumulate in fp32.
"""

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Kind = Literal["norm", "softmax", "stream"]
LARGEST_FP16 = 65504.0
ROOM = 4.0  # between the largest value that was seen and the largest that fits
FUSED_WIDTH = 256  # of a head; wider ones have no fused kernel, and their scores are stored
# Layers whose results are summed or normalised, and the sums: what lies between norms.
_STREAM = re.compile(
    r"(conv_in|conv[12]|conv_shortcut|samplers\.0[\w.]*|to_out\.0|patch_in|\.out|mlp_out)/\w+$"
    r"|(resnets|attentions|blocks)\.\d+/add$"
)
_MOVES = frozenset(
    ["__getitem__", "cat", "chunk", "contiguous", "expand", "expand_as", "flatten", "float"]
    + ["index_select", "pad", "permute", "repeat", "reshape", "split", "squeeze", "stack", "t"]
    + ["to", "transpose", "unbind", "unflatten", "unsqueeze", "view", "view_as"]
)


@dataclass(eq=False)
class Rounding(TorchFunctionMode):
    """Rounds what functions give to `dtype` (None: not at all) and notes how large it is."""

    network: nn.Module
    dtype: torch.dtype | None = None
    wide: Collection[Kind] = ()
    largest: dict[str, float] = field(default_factory=dict)  # "layer/function" -> largest absolute
    output: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__init__()
        self._layers: list[tuple[str, str]] = [("", "")]  # names and classes, innermost last

    def run(self, *arguments: Any) -> Tensor:
        """The network's output on `arguments`, kept in `output`, too."""
        hooks = []
        for name, module in self.network.named_modules():
            layer = name, type(module).__name__
            enter = module.register_forward_pre_hook(lambda *_, layer=layer: self._enter(layer))
            hooks += [enter, module.register_forward_hook(lambda *_: self._leave())]
        try:
            with torch.no_grad(), self:
                self.output = self.network(*arguments)
            return self.output
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        given = kwargs or {}
        if name == "scaled_dot_product_attention":
            return self._keep("attention", self._attend(*args, **given))
        if name in ("group_norm", "rms_norm") and self.dtype and "norm" not in self.wide:
            narrow = self._group_norm if name == "group_norm" else self._rms_norm
            return self._keep(name, narrow(*args, **given))
        out = func(*args, **given)
        if not isinstance(out, Tensor) or not out.is_floating_point() or name in _MOVES:
            return out
        return self._keep(name.strip("_"), out)

    def _keep(self, function: str, x: Tensor) -> Tensor:
        layer, kind = self._layers[-1]
        if kind == "FoldedBlock" and x.ndim == 3:  # of the text's queries and keys
            function = f"rotation_{function}"
        name = f"{layer}/{function}"
        largest = float(x.abs().max()) if x.numel() else 0.0
        self.largest[name] = max(largest, self.largest.get(name, 0.0))
        return x if "stream" in self.wide and is_stream(name) else self._round(x)

    def _round(self, x: Tensor) -> Tensor:
        return x if self.dtype is None else x.to(self.dtype).float()

    def _enter(self, layer: tuple[str, str]) -> None:
        self._layers.append(layer)

    def _leave(self) -> None:
        self._layers.pop()

    def _group_norm(
        self, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        """All of it in 16 bits, as separate operators."""
        r = self._round
        y = x.reshape(x.shape[0], groups, -1)
        y = r(y - r(y.mean(-1, keepdim=True)))
        y = r(y * r(torch.rsqrt(r(r(r(y * y).mean(-1, keepdim=True)) + eps)))).view(x.shape)
        shape = (1, -1, *[1] * (x.ndim - 2))
        return r(y * weight.view(shape)) + bias.view(shape)

    def _rms_norm(
        self, x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None
    ) -> Tensor:
        r = self._round
        y = r(x * r(torch.rsqrt(r(r(r(x * x).mean(-1, keepdim=True)) + (eps or 0.0)))))
        return y if weight is None else y * weight

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Fused, scores and softmax stay in registers; else scores and probabilities are stored."""
        fused = q.shape[-1] <= FUSED_WIDTH and "softmax" in self.wide
        if self.dtype is None or fused:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        r = self._round
        scores = r(r(q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2))
        if "softmax" in self.wide:
            return r(scores.softmax(-1)) @ v
        powers = r(torch.exp(r(scores - scores.amax(-1, keepdim=True))))
        return r(powers / r(powers.sum(-1, keepdim=True))) @ v


def is_stream(name: str) -> bool:
    """Whether `Rounding` names a tensor that lies between norms, which may be scaled freely."""
    return bool(_STREAM.search(name))


def fitting_stream(largest: float, stream: float) -> float:
    """The `Form.stream` for fp16, after `largest` was seen between norms with `stream`.

    The same if the values fit with room, else the largest power of two that makes them.
    """
    if largest * ROOM <= LARGEST_FP16:
        return stream
    return float(2.0 ** math.floor(math.log2(LARGEST_FP16 * stream / (ROOM * largest))))
