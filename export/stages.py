"""The network stages of design §2 as modules with named inputs and outputs, ready to trace.

`H, W` pixels, `h, w` = H/8, W/8 latent pixels, `T` latents of a generator window, `k` latents of
a VAE step. States are named after the layer that keeps them: `state.X` in, `next.X` out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

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
Half = Literal["", "fine", "coarse"]
LATENT = 8  # pixels of a latent pixel, along rows and columns
# What a graph of any size is traced with: h and w without a common factor tell the axes apart.
TRACED_LATENT = (6, 10)
TRACED_LATENTS = 3
START_LATENTS, START_FRAMES = 2, 5
FRAMES_PER_LATENT = 4


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A network, or its half of high (`fine`) or low (`coarse`) resolutions."""

    network: Coder
    half: Half = ""

    @property
    def states(self) -> list[str]:
        """The states that this part keeps, in the order of the stages' inputs and outputs."""
        if not self.half:
            return self.network.states
        fine = self.half == "fine"
        return [n for n in self.network.states if (n in self.network.fine_states) == fine]

    @property
    def ends(self) -> tuple[str, str]:
        """The names of what goes in and comes out."""
        encodes = isinstance(self.network, Encoder)
        ends = ("x", "latent") if encodes else ("latent", "x")
        if not self.half:
            return ends
        return (ends[0], "features") if encodes == (self.half == "fine") else ("features", ends[1])

    def run(self, x: Tensor, stream: Stream) -> Tensor:
        """The part's output."""
        network = getattr(self.network, self.half) if self.half else self.network
        return network(x, stream)


class StartStage(nn.Module):
    """The first call of a shot, or a single picture: no state comes in."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.network, self.part = part.network, part

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        stream = Stream()
        out = self.part.run(x, stream)
        return out, *(stream.next[name] for name in self.part.states)


class StepStage(nn.Module):
    """Every later call: the states come in, in the order of `part.states`."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.network, self.part = part.network, part

    def forward(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, ...]:
        stream = Stream(dict(zip(self.part.states, states, strict=True)))
        out = self.part.run(x, stream)
        return out, *(stream.next[name] for name in self.part.states)


def coder_stages(
    video: Callable[[], Coder],
    picture: Callable[[], Coder],
    shape: StageShape | None,
    *,
    cut: bool = False,
) -> Iterator[Trace]:
    """`encode_*` or `decode_*`: start and step of the video network, image of the picture's.

    With `cut`, start and step of its halves of high and of low resolution, the former of one frame
    a call. Without a `shape`, for every size. Networks are made when their turn comes.
    """
    network = video()
    halves: tuple[Half, ...] = ("fine", "coarse") if cut else ("",)
    for half in halves:
        part = Part(network=network, half=half)
        x = _example(part, START_LATENTS, START_FRAMES, shape)
        yield _trace("start", part, (x,), shape)
        states = _states(part, x)
        step = shape.step if shape else 1
        x = _example(part, step, FRAMES_PER_LATENT * step, shape)
        yield _trace("step", part, (x, states), shape)
    del network, part, states
    part = Part(network=picture())
    yield _trace("image", part, (_example(part, 1, 1, shape),), shape)


def _example(part: Part, latents: int, frames: int, shape: StageShape | None) -> Tensor:
    """An empty tensor of the input's shape: its pages are never touched."""
    h, w = (shape.h, shape.w) if shape else TRACED_LATENT
    network = part.network
    encodes = isinstance(network, Encoder)
    sizes = (network.config.latent_channels, latents, h, w)
    if part.ends[0] == "x":
        count = 1 if part.half else frames
        sizes = (network.config.image_channels, count, LATENT * h, LATENT * w)
    elif part.ends[0] == "features":  # at half the pixels' resolution, one frame a call if fine
        channels = network.config.channels[0 if encodes else 2]
        sizes = (channels, frames if encodes else 1, LATENT // 2 * h, LATENT // 2 * w)
    return torch.empty(1, *sizes, dtype=network.conv_in.weight.dtype)


def _states(part: Part, x: Tensor) -> list[Tensor]:
    """Empty states of the right shapes, found by running the network on shapes alone."""
    with torch.device("meta"):
        ghost = Part(
            network=type(part.network)(part.network.config, part.network.form), half=part.half
        )
        _, *states = StartStage(ghost)(torch.empty_like(x, device="meta", dtype=torch.float32))
    return [torch.empty(state.shape, dtype=x.dtype) for state in states]


def _trace(call: str, part: Part, arguments: tuple[Any, ...], shape: StageShape | None) -> Trace:
    verb = "encode" if isinstance(part.network, Encoder) else "decode"
    came, result = part.ends
    return Trace(
        name="_".join(word for word in (verb, part.half, call) if word),
        module=StepStage(part) if call == "step" else StartStage(part),
        arguments=arguments,
        inputs=[came, *(f"state.{name}" for name in part.states if call == "step")],
        outputs=[result, *(f"next.{name}" for name in part.states)],
        dynamic=None if shape else _any_size(arguments),
    )


def _any_size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Rows and columns as multiples of h and w."""
    h, w = Dim("h", min=2), Dim("w", min=2)

    def dims(x: Tensor) -> dict[int, Any]:
        (rows, columns), (traced_h, traced_w) = x.shape[3:], TRACED_LATENT
        return {3: rows // traced_h * h, 4: columns // traced_w * w}

    return tuple([dims(x) for x in a] if isinstance(a, list) else dims(a) for a in arguments)


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
