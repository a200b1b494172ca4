"""The network stages of design §2 as modules with named inputs and outputs, ready to trace.

`H, W` pixels, `h, w` = H/8, W/8 latent pixels, `T` latents of a generator window, `k` latents of
a VAE step. States are named after the layer that keeps them: `state.X` in, `next.X` out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from vr_trt.export.causal import Stream
from vr_trt.export.folded_generator import (
    PARTITIONS,
    TABLES,
    AnySizeGenerator,
    FoldedGenerator,
    StaticGenerator,
)
from vr_trt.export.onnx_graph import Trace
from vr_trt.export.vae import Decoder, Encoder
from vr_trt.kernels.windows import any_size_tables

Coder = Encoder | Decoder
LATENT = 8  # pixels of a latent pixel, along rows and columns
# What a graph of any size is traced with: h and w without a common factor tell the axes apart.
TRACED_LATENT = (6, 10)
TRACED_LATENTS = 3
START_LATENTS, START_FRAMES = 2, 5


@dataclass(frozen=True, kw_only=True, slots=True)
class StageShape:
    """The sizes of one profile's stages, in pixels and latents."""

    height: int
    width: int
    latents: int  # of a generator window
    step: int = 1  # latents of a VAE step

    def __post_init__(self) -> None:
        if self.height % 16 or self.width % 16 or min(self.height, self.width) < 16:
            raise ValueError(f"{self.width}x{self.height} pixels are not multiples of 16")
        if self.latents < 1 or self.step < 1:
            raise ValueError(f"a window and a step need at least one latent: {self}")

    @property
    def h(self) -> int:
        return self.height // LATENT

    @property
    def w(self) -> int:
        return self.width // LATENT


class StartStage(nn.Module):
    """The first call of a shot, or a single picture: no state comes in."""

    def __init__(self, network: Coder) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        stream = Stream()
        out = self.network(x, stream)
        return out, *(stream.next[name] for name in self.network.states)


class StepStage(nn.Module):
    """Every later call: the states come in, in the order of `network.states`."""

    def __init__(self, network: Coder) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, ...]:
        stream = Stream(dict(zip(self.network.states, states, strict=True)))
        out = self.network(x, stream)
        return out, *(stream.next[name] for name in self.network.states)


def coder_stages(
    video: Callable[[], Coder], picture: Callable[[], Coder], shape: StageShape | None
) -> Iterator[Trace]:
    """`encode_*` or `decode_*`: start and step of the video network, image of the picture's.

    Without a `shape`, for every size. Networks are made when their turn comes, one at a time.
    """
    step = shape.step if shape else 1
    network = video()
    x = _example(network, START_LATENTS, START_FRAMES, shape)
    yield _trace("start", network, (x,), shape)
    states = _states(network, x)
    x = _example(network, step, 4 * step, shape)
    yield _trace("step", network, (x, states), shape)
    del network, states
    network = picture()
    yield _trace("image", network, (_example(network, 1, 1, shape),), shape)


def _example(network: Coder, latents: int, frames: int, shape: StageShape | None) -> Tensor:
    h, w = (shape.h, shape.w) if shape else TRACED_LATENT
    dtype = network.conv_in.weight.dtype
    if isinstance(network, Encoder):  # empty: its pages are never touched
        return torch.empty(
            1, network.conv_in.in_channels, frames, h * LATENT, w * LATENT, dtype=dtype
        )
    return torch.empty(1, network.conv_in.in_channels, latents, h, w, dtype=dtype)


def _states(network: Coder, x: Tensor) -> list[Tensor]:
    """Empty states of the right shapes, found by running the network on shapes alone."""
    with torch.device("meta"):
        ghost = network.__class__(network.config, network.form)
        _, *states = StartStage(ghost)(torch.empty_like(x, device="meta", dtype=torch.float32))
    return [torch.empty(state.shape, dtype=x.dtype) for state in states]


def _trace(
    part: str, network: Coder, arguments: tuple[Any, ...], shape: StageShape | None
) -> Trace:
    encodes = isinstance(network, Encoder)
    states = network.states
    return Trace(
        name=f"{'encode' if encodes else 'decode'}_{part}",
        module=StepStage(network) if part == "step" else StartStage(network),
        arguments=arguments,
        inputs=[
            "x" if encodes else "latent",
            *(f"state.{name}" for name in states if part == "step"),
        ],
        outputs=["latent" if encodes else "x", *(f"next.{name}" for name in states)],
        dynamic=None if shape else _any_size(arguments),
    )


def _any_size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Rows and columns as multiples of h and w; a strided layer's state has one more."""
    h, w = Dim("h", min=2), Dim("w", min=2)

    def dims(x: Tensor) -> dict[int, Any]:
        return {
            axis: _multiple(x.shape[axis], traced, dim)
            for axis, traced, dim in ((3, TRACED_LATENT[0], h), (4, TRACED_LATENT[1], w))
        }

    return tuple([dims(x) for x in a] if isinstance(a, list) else dims(a) for a in arguments)


def _multiple(size: int, traced: int, dim: Any) -> Any:
    factor, more = divmod(size, traced)
    scaled = factor * dim if factor > 1 else dim
    return scaled + more if more else scaled


def generator_stages(folded: FoldedGenerator, shape: StageShape | None) -> Iterator[Trace]:
    """`generator` of a window and `generator_image` of one latent, or one graph for every size."""
    if shape is None:
        yield _any_size_generator(folded)
        return
    for name, latents in (("generator", shape.latents), ("generator_image", 1)):
        latent = torch.empty(
            1, folded.config.latent_channels, latents, shape.h, shape.w, dtype=folded.text.dtype
        )
        yield Trace(
            name=name,
            module=StaticGenerator(folded, (latents, shape.h // 2, shape.w // 2)),
            arguments=(latent, torch.empty_like(latent)),
            inputs=["noise", "latent"],
            outputs=["restored"],
        )


def _any_size_generator(folded: FoldedGenerator) -> Trace:
    config = folded.config
    h, w = (size + 40 for size in TRACED_LATENT)  # several windows along every axis
    latent = torch.empty(1, config.latent_channels, TRACED_LATENTS, h, w, dtype=folded.text.dtype)
    grid = (TRACED_LATENTS, h // 2, w // 2)
    tables = any_size_tables(grid, len(folded.text), config.head_width, config.rope)
    sizes = {"index": (0, 1), "mask": (0, 3), "place": (0,), "cos": (0,), "sin": (0,)}
    half = [{axis: Dim.AUTO for axis in sizes[name]} for name in TABLES]
    free = {axis: Dim.AUTO for axis in (2, 3, 4)}
    return Trace(
        name="generator",
        module=AnySizeGenerator(folded),
        arguments=(
            latent,
            torch.empty_like(latent),
            [torch.from_numpy(table) for table in tables.values()],
        ),
        inputs=["noise", "latent", *(f"{part}.{name}" for part in PARTITIONS for name in TABLES)],
        outputs=["restored"],
        dynamic=(free, free, [*half, *half]),
    )
