"""The largest tensor of every VAE stage, found by running it on shapes alone.

`python -m vr_trt.export.tensor_sizes` prints the table: what a whole call holds at a profile, and
what the calls of a VAE cut by resolution hold. Libraries index with 32 bits: from 2^31 elements on,
kernels are wrong or missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vr_trt.export.config import VAE, VaeConfig
from vr_trt.export.stages import StageShape, coder_stages
from vr_trt.export.vae import IMAGE, VIDEO, Decoder, Encoder

LIMIT = 2**31  # elements
# 16:9 at each profile's short side, padded to the networks' cells.
CANVASES = {
    "720p": (1280, 720),
    "1080p": (1920, 1088),
    "1440p": (2560, 1440),
    "2160p": (3840, 2160),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Largest:
    """The largest tensor of one call."""

    stage: str
    operator: str  # that makes it
    sizes: tuple[int, ...]
    elements: int


class _Watch(TorchDispatchMode):
    """Looks at every operator's results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: tuple[int, str, tuple[int, ...]] = (0, "", ())

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            # An expanded view has the sizes, not the memory.
            if isinstance(tensor, Tensor) and 0 not in tensor.stride():
                found = tensor.numel(), str(func), tuple(tensor.shape)
                self.found = max(self.found, found, key=lambda f: f[0])
        return results


def largest_tensors(shape: StageShape, *, cut: bool, config: VaeConfig = VAE) -> Iterator[Largest]:
    """The largest tensor of each VAE stage of `shape`, its inputs and states included."""
    for coder in (Encoder, Decoder):
        with torch.device("meta"):
            stages = coder_stages(
                lambda coder=coder: coder(config, VIDEO),  # type: ignore[misc]
                lambda coder=coder: coder(config, IMAGE),  # type: ignore[misc]
                shape,
                cut=cut,
            )
            for stage in stages:
                with _Watch() as watch, torch.no_grad():
                    stage.module(*stage.arguments)
                elements, operator, sizes = watch.found
                yield Largest(stage=stage.name, operator=operator, sizes=sizes, elements=elements)


def main() -> None:
    """The command."""
    for name, (width, height) in CANVASES.items():
        shape = StageShape(height=height, width=width, latents=6)
        for cut in (False, True):
            print(f"{name} {width}x{height}, {'cut by resolution' if cut else 'whole'}")
            for row in largest_tensors(shape, cut=cut):
                mark = "  2^31 or more" if row.elements >= LIMIT else ""
                print(f"  {row.stage:20} {row.elements:>13,}  {list(row.sizes)}{mark}")


if __name__ == "__main__":
    main()
