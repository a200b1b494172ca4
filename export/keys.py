"""The keys and shapes that a checkpoint of a network must have: those of the network itself.

Source: network spec §2 (generator) and §6 (VAE); tests hold the classes to the reference's lists.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from vr_trt.errors import ModelError
from vr_trt.export.config import GeneratorConfig, VaeConfig
from vr_trt.export.generator import Generator
from vr_trt.export.vae import VideoVae

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

NAMED_AT_MOST = 5  # keys that an error spells out, of each kind
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
ROPE_SUFFIX = ".attn.rope.rope.freqs"


def is_rope_buffer(key: str) -> bool:
    """Whether `key` names a block's rope frequencies: constants that we recompute, never read."""
    return key.endswith(ROPE_SUFFIX)


def expected_generator(config: GeneratorConfig) -> Shapes:
    """Every key of a generator's state dict with its shape."""
    with torch.device("meta"):
        return _shapes(Generator(config))


def expected_vae(config: VaeConfig) -> Shapes:
    """Every key of the VAE's state dict with its shape."""
    with torch.device("meta"):
        return _shapes(VideoVae(config))


def _shapes(network: nn.Module) -> Shapes:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def current_vae_key(key: str) -> str:
    """`key` with the old attention names (`query`, `key`, `value`, `proj_attn`) made new (§6)."""
    head, dot, parameter = key.rpartition(".")
    stem, _, layer = head.rpartition(".")
    if "attentions." in stem and layer in OLD_ATTENTION:
        return f"{stem}.{OLD_ATTENTION[layer]}{dot}{parameter}"
    return key


def check_keys(found: Mapping[str, Shape], expected: Mapping[str, Shape], path: Path) -> None:
    """Raise ModelError unless `found` has exactly the keys and shapes of `expected`.

    The error names the first five missing, extra and misshapen keys, and counts each kind.
    """
    misshapen = [
        f"{key} is {_text(found[key])}, not {_text(shape)}"
        for key, shape in expected.items()
        if key in found and tuple(found[key]) != tuple(shape)
    ]
    faults = [
        _fault("missing", [key for key in expected if key not in found]),
        _fault("extra", [key for key in found if key not in expected]),
        _fault("misshapen", misshapen),
    ]
    if any(faults):
        raise ModelError(
            f"{path} does not hold this network's weights: {'; '.join(filter(None, faults))}. "
            "Check that the file belongs to the model (`vr-trt weights list`)."
        )


def _fault(kind: str, keys: Iterable[str]) -> str:
    keys = list(keys)
    if not keys:
        return ""
    more = ", ..." if len(keys) > NAMED_AT_MOST else ""
    return f"{len(keys)} {kind} ({', '.join(keys[:NAMED_AT_MOST])}{more})"


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"
