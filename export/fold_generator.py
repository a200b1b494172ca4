"""Fold timestep, prompt, sampler and modulation into the generator's linears, exactly.

Everything is computed in fp32 from the checkpoint's tensors, one block at a time, and cast at the
end, so that a mapping that reads lazily is folded in the memory of the result and of one block.
Source: network spec §4.5–4.7, §5; design §3.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from vr_trt.export.checkpoint import narrowed
from vr_trt.export.config import GeneratorConfig
from vr_trt.export.folded_generator import FoldedGenerator
from vr_trt.export.generator import Modulation, time_waves

Weights = Mapping[str, Tensor]


def fold_generator(
    config: GeneratorConfig,
    weights: Weights,
    text: Tensor,  # [L, text_width]
    *,
    timestep: float = 1000.0,
    dtype: torch.dtype = torch.float32,
) -> FoldedGenerator:
    """The deployed form of the checkpoint `weights` for one timestep and one prompt."""
    with torch.device("meta"):
        folded = FoldedGenerator(config, len(text))
    state = {k: narrowed(k, v, dtype) for k, v in _folded(config, weights, text, timestep)}
    folded.load_state_dict(state, assign=True)
    folded.text_cos, folded.text_sin = folded.text_cos.to(dtype), folded.text_sin.to(dtype)
    return folded.eval().requires_grad_(False)


def _folded(
    config: GeneratorConfig, weights: Weights, text: Tensor, timestep: float
) -> Iterator[tuple[str, Tensor]]:
    w = _Fp32(weights)
    embedding = _time_embedding(w, timestep)
    yield "text", F.linear(text.float(), w["txt_in.weight"], w["txt_in.bias"])
    yield from _patch_in(config, w)
    for layer in range(config.layers):
        for branch, tensors in _block(config, w, layer, embedding).items():
            for name, tensor in tensors.items():
                yield f"blocks.{layer}.{branch}.{name}", tensor
    yield from _patch_out(config, w, embedding)


class _Fp32:
    """A view of the checkpoint in fp32, by name, read when asked for."""

    def __init__(self, weights: Weights, prefix: str = "") -> None:
        self._weights, self._prefix = weights, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[self._prefix + name].float()

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._weights

    def under(self, prefix: str) -> "_Fp32":
        return _Fp32(self._weights, self._prefix + prefix)


def _time_embedding(w: _Fp32, timestep: float) -> Tensor:
    """[C, 2, 3]: attention and MLP; shift, scale and gate."""
    x = time_waves(torch.tensor(timestep))
    for name in ("proj_in", "proj_hid", "proj_out"):
        x = F.linear(x, w[f"emb_in.{name}.weight"], w[f"emb_in.{name}.bias"])
        if name != "proj_out":
            x = F.silu(x)
    return x.view(-1, 2, 3)


def _modulation(w: _Fp32, modality: str, layer: str, embedding: Tensor) -> Modulation:
    parts = embedding[:, 0 if layer == "attn" else 1].unbind(1)
    names = [f"ada.{modality}.{layer}_{name}" for name in Modulation._fields]
    return Modulation(*(part + w[name] for part, name in zip(parts, names, strict=True)))


def _after_norm(weight: Tensor, bias: Tensor | None, by: Modulation) -> tuple[Tensor, Tensor]:
    """A linear that takes x in place of x * scale + shift."""
    shift = weight @ by.shift
    return weight * by.scale, shift if bias is None else shift + bias


def _before_gate(weight: Tensor, bias: Tensor | None, by: Modulation) -> tuple[Tensor, Tensor]:
    """A linear whose output is already multiplied by the gate."""
    bias = torch.zeros_like(by.gate) if bias is None else bias
    return weight * by.gate[:, None], bias * by.gate


def _halves_first(head_width: int) -> Tensor:
    """Where the head's dimensions come from, so that pairs (2j, 2j + 1) become halves."""
    return torch.arange(head_width).view(-1, 2).t().reshape(-1)


def _rotatable(config: GeneratorConfig, qkv: Tensor) -> Tensor:
    """Reorder the rows of queries and keys for `rotate_halves`: their products do not change."""
    order = _halves_first(config.head_width)
    parts = qkv.unflatten(0, (3, config.heads, config.head_width)).unbind(0)
    return torch.stack([parts[0][:, order], parts[1][:, order], parts[2]]).flatten(0, 2)


def _block(
    config: GeneratorConfig, weights: _Fp32, layer: int, embedding: Tensor
) -> dict[str, dict[str, Tensor]]:
    w = weights.under(f"blocks.{layer}.")
    video, text = ("all", "all") if config.shared(layer) else ("vid", "txt")
    branches = {"video": _branch(config, w, video, embedding)}
    if layer == config.layers - 1:
        branches["text"] = _text_keys(config, w, text, embedding)
    elif not config.shared(layer):
        branches["text"] = _branch(config, w, text, embedding)
    return branches


def _branch(
    config: GeneratorConfig, w: _Fp32, modality: str, embedding: Tensor
) -> dict[str, Tensor]:
    """All of one modality's weights in a block."""
    attn, mlp = (_modulation(w, modality, layer, embedding) for layer in ("attn", "mlp"))
    order = _halves_first(config.head_width)
    qkv = _after_norm(_rotatable(config, w[f"attn.proj_qkv.{modality}.weight"]), None, attn)
    out = w[f"attn.proj_out.{modality}.weight"], w[f"attn.proj_out.{modality}.bias"]
    mlp_in, mlp_out = _mlp(config, w.under(f"mlp.{modality}."), mlp)
    linears = {"qkv": qkv, "out": _before_gate(*out, attn), "mlp_in": mlp_in, "mlp_out": mlp_out}
    folded = {f"norm_{x}.weight": w[f"attn.norm_{x}.{modality}.weight"][order] for x in ("q", "k")}
    for name, (weight, bias) in linears.items():
        folded |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return folded


def _mlp(
    config: GeneratorConfig, w: _Fp32, by: Modulation
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both linears; the SwiGLU's two entries become one of twice the width, gate first."""
    if config.mlp == "swiglu":
        entry = torch.cat([w["proj_in_gate.weight"], w["proj_in.weight"]])
        return _after_norm(entry, None, by), _before_gate(w["proj_out.weight"], None, by)
    return (
        _after_norm(w["proj_in.weight"], w["proj_in.bias"], by),
        _before_gate(w["proj_out.weight"], w["proj_out.bias"], by),
    )


def _text_keys(
    config: GeneratorConfig, w: _Fp32, modality: str, embedding: Tensor
) -> dict[str, Tensor]:
    """Keys and values of the last block's text: nothing else of it reaches the output."""
    inner = config.heads * config.head_width
    kv = _rotatable(config, w[f"attn.proj_qkv.{modality}.weight"])[inner:]
    if config.last_block_text:
        kv, bias = _after_norm(kv, None, _modulation(w, modality, "attn", embedding))
    else:
        bias = torch.zeros(2 * inner)
    norm = w[f"attn.norm_k.{modality}.weight"][_halves_first(config.head_width)]
    return {"norm_k.weight": norm, "kv.weight": kv, "kv.bias": bias}


def _patch_in(config: GeneratorConfig, w: _Fp32) -> Iterator[tuple[str, Tensor]]:
    """Patches in the order channel, row, column; the mask of ones goes into the bias."""
    weight = w["vid_in.proj.weight"].view(config.width, 4, config.vid_in_channels)
    mask = 2 * config.latent_channels
    yield "patch_in.weight", weight[:, :, :mask].transpose(1, 2).flatten(1)
    yield "patch_in.bias", w["vid_in.proj.bias"] + weight[:, :, mask:].sum((1, 2))


def _patch_out(
    config: GeneratorConfig, w: _Fp32, embedding: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """The negative of v, patches in the order channel, row, column: x0 = noise - v."""
    weight, bias = w["vid_out.proj.weight"], w["vid_out.proj.bias"]
    if config.output_norm:  # the attention slots: spec §4.6
        shift, scale, gate = embedding[:, 0].unbind(1)
        scale = (scale + w["vid_out_ada.out_scale"]) * w["vid_out_norm.weight"]
        by = Modulation(shift + w["vid_out_ada.out_shift"], scale, gate)
        weight, bias = _after_norm(weight, bias, by)
    channels = config.vid_out_channels
    yield "patch_out.weight", -weight.view(4, channels, -1).transpose(0, 1).flatten(0, 1)
    yield "patch_out.bias", -bias.view(4, channels).t().reshape(-1)
