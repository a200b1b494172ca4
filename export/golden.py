"""Reading golden files and comparing with them: what every kind of parity case shares."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vr_trt.errors import UsageError


class Case(NamedTuple):
    """What was compared, and by how much it is off."""

    name: str
    error: float


def relative_rms(ours: Tensor, theirs: Tensor) -> float:
    """Root mean square of the difference over that of `theirs`; infinite for unequal shapes."""
    if ours.shape != theirs.shape:
        return float("inf")
    ours, theirs = ours.double(), theirs.double()
    scale = theirs.square().mean().sqrt()
    off = (ours - theirs).square().mean().sqrt()
    return float(off / scale) if scale else float(off)


class Entries(dict[str, Any]):
    """What a file of the folder holds; asking for an entry that it lacks is a UsageError."""

    def __init__(self, path: Path, entries: Any) -> None:
        super().__init__(entries)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise UsageError(f"{self.path} has no entry {name!r}; it was made by another tool")


def read_json(path: Path) -> Entries:
    """The contents of a JSON file of the folder."""
    try:
        contents = json.loads(path.read_text(), object_pairs_hook=lambda kv: Entries(path, kv))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not JSON ({error}); it was made by another tool") from None
    if not isinstance(contents, Entries):
        raise UsageError(f"{path} holds no table of entries; it was made by another tool")
    return contents


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file of the folder, floating ones in fp32."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} is not a whole safetensors file ({error})") from None
    return Entries(path, {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})


def load_network(network: nn.Module, path: Path) -> nn.Module:
    """Fill `network` with the weights of `path`, strictly."""
    try:
        network.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        what = str(error).splitlines()[-1].strip()
        raise UsageError(f"{path} does not fit the configuration beside it: {what}") from None
    return network.eval().requires_grad_(False)


def recorded(network: nn.Module, names: set[str]) -> dict[str, Any]:
    """Record the outputs of the submodules `names` at the next forward."""
    outputs: dict[str, Any] = {}

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _arguments: Any, output: Any) -> None:
            outputs[name] = output

        return hook

    for name, module in network.named_modules():
        if name in names:
            module.register_forward_hook(record(name))
    return outputs
