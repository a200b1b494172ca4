"""The arithmetic that folding saves, counted by PyTorch on full-size networks without weights.

`python -m vr_trt.export.flops` prints the table. Source: design §3; two operations a multiply-add.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vr_trt.export.causal import Stream
from vr_trt.export.config import GENERATOR_3B, GENERATOR_7B, VAE, GeneratorConfig, VaeConfig
from vr_trt.export.folded_generator import FoldedGenerator, StaticGenerator
from vr_trt.export.generator import Generator
from vr_trt.export.vae import IMAGE, PLAIN, VIDEO, Decoder, Encoder, Form
from vr_trt.kernels.windows import Grid

TEXT_TOKENS = 58  # of the published prompt
Coder = type[Encoder] | type[Decoder]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Floating-point operations of one call of a stage."""

    stage: str
    plain: int
    folded: int

    @property
    def saved(self) -> float:
        """The part of the plain network's operations that the folded one does without."""
        return 1 - self.folded / self.plain


def count(network: nn.Module, *arguments: object) -> int:
    """Operations of `network(*arguments)`; on the meta device nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*arguments)
    return counter.get_total_flops()


def generator_counts(name: str, config: GeneratorConfig, grid: Grid) -> Counts:
    """Of one window of T x H x W tokens."""
    T, h, w = grid[0], 2 * grid[1], 2 * grid[2]
    with torch.device("meta"):
        plain, folded = Generator(config), FoldedGenerator(config, TEXT_TOKENS)
        video = torch.empty(T, h, w, config.vid_in_channels)
        text = torch.empty(TEXT_TOKENS, config.text_width)
        latent = torch.empty(1, config.latent_channels, T, h, w)
        timestep = torch.empty(())
    static = StaticGenerator(folded, grid).to("meta")
    return Counts(
        stage=name,
        plain=count(plain, video, text, timestep),
        folded=count(static, latent, latent),
    )


def coder_counts(coder: Coder, part: str, config: VaeConfig, height: int, width: int) -> Counts:
    """Of `encode_*` or `decode_*` by `part`: image, start, or step (of one latent)."""
    encodes = coder is Encoder
    forms = PLAIN, (IMAGE if part == "image" else VIDEO)
    plain, folded = (_coder_count(coder, form, part, config, (height, width)) for form in forms)
    return Counts(stage=f"{'encode' if encodes else 'decode'}_{part}", plain=plain, folded=folded)


def _coder_count(
    coder: Coder, form: Form, part: str, config: VaeConfig, size: tuple[int, int]
) -> int:
    frames, latents = {"image": (1, 1), "start": (5, 2), "step": (4, 1)}[part]
    with torch.device("meta"):
        network = coder(config, form)

        def example(frames: int, latents: int) -> Tensor:
            if coder is Encoder:
                return torch.empty(1, config.image_channels, frames, *size)
            return torch.empty(1, config.latent_channels, latents, size[0] // 8, size[1] // 8)

        stream = Stream()
        if part == "step":
            with torch.no_grad():
                network(example(5, 2), stream)
            stream = Stream(stream.next)
        return count(network, example(frames, latents), stream)


def all_counts() -> list[Counts]:
    """Every stage at 720p; the generators of 21 frames."""
    grid = (6, 45, 80)
    rows = [
        coder_counts(coder, part, VAE, 720, 1280)
        for coder in (Encoder, Decoder)
        for part in ("image", "start", "step")
    ]
    for name, config in {"generator 3b": GENERATOR_3B, "generator 7b": GENERATOR_7B}.items():
        rows.append(generator_counts(name, config, grid))
    return rows


def main() -> None:
    """The command."""
    print(f"{'stage':<14} {'plain TF':>9} {'folded TF':>9} {'saved':>7}")
    for row in all_counts():
        plain, folded = row.plain / 1e12, row.folded / 1e12
        print(f"{row.stage:<14} {plain:9.2f} {folded:9.2f} {row.saved:7.2%}")


if __name__ == "__main__":
    main()
