"""The shapes of the networks, by configuration.

Source: network spec §1 (generator), §6 (VAE). The 3B and 7B generators differ in rope, MLP,
weight sharing and head; the configuration says which, the classes hold one code path each.
"""

from dataclasses import dataclass
from typing import Any, Literal

Rope = Literal["language", "pixel"]  # 3B: integer positions, text rotated; 7B: -1..1 per window
Mlp = Literal["swiglu", "gelu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorConfig:
    """One generator: `shared_from` is the first block whose weights serve video and text alike."""

    width: int
    heads: int
    head_width: int
    layers: int
    text_width: int
    rope: Rope
    mlp: Mlp
    mlp_width: int
    shared_from: int
    output_norm: bool  # RMSNorm and modulation before the last linear (3B)
    last_block_text: bool  # False: the last block's text is neither modulated nor continued (3B)
    vid_in_channels: int = 33  # noise 16, condition latent 16, mask 1
    vid_out_channels: int = 16
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.head_width % 2 or self.heads < 1 or self.layers < 1:
            raise ValueError(f"a generator needs an even head width, heads and layers: {self}")

    @property
    def latent_channels(self) -> int:
        return self.vid_out_channels

    def shared(self, layer: int) -> bool:
        """Whether block `layer` has one copy of its weights for video and text."""
        return layer >= self.shared_from


def swiglu_width(width: int, expand: int = 4) -> int:
    """Hidden width of the 3B's MLP: two thirds of `expand` widths, up to a multiple of 256."""
    return 256 * -(-int(2 * width * expand / 3) // 256)


def generator_3b_style(
    *, width: int, heads: int, head_width: int, layers: int, text_width: int, shared_from: int
) -> GeneratorConfig:
    """A generator of the 3B's code path (spec §1, first column)."""
    return GeneratorConfig(
        width=width,
        heads=heads,
        head_width=head_width,
        layers=layers,
        text_width=text_width,
        rope="language",
        mlp="swiglu",
        mlp_width=swiglu_width(width),
        shared_from=shared_from,
        output_norm=True,
        last_block_text=False,
    )


def generator_7b_style(
    *, width: int, heads: int, head_width: int, layers: int, text_width: int
) -> GeneratorConfig:
    """A generator of the 7B's code path (spec §1, second column)."""
    return GeneratorConfig(
        width=width,
        heads=heads,
        head_width=head_width,
        layers=layers,
        text_width=text_width,
        rope="pixel",
        mlp="gelu",
        mlp_width=4 * width,
        shared_from=layers,
        output_norm=False,
        last_block_text=True,
    )


def generator_from_reference(params: dict[str, Any]) -> GeneratorConfig:
    """The configuration that the reference's constructor arguments `params` describe."""
    sizes = {
        "width": params["vid_dim"],
        "heads": params["heads"],
        "head_width": params["head_dim"],
        "layers": params["num_layers"],
        "text_width": params["txt_in_dim"],
    }
    if params["mlp_type"] == "swiglu":
        return generator_3b_style(**sizes, shared_from=params["mm_layers"])
    return generator_7b_style(**sizes)


GENERATOR_3B = generator_3b_style(
    width=2560, heads=20, head_width=128, layers=32, text_width=5120, shared_from=10
)
GENERATOR_7B = generator_7b_style(width=3072, heads=24, head_width=128, layers=36, text_width=5120)
GENERATOR_NANO = generator_3b_style(
    width=96, heads=3, head_width=32, layers=4, text_width=64, shared_from=2
)


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeConfig:
    """The causal video VAE: 8 x 8 pixels x 4 frames to one latent of 16 channels (spec §6)."""

    channels: tuple[int, int, int, int] = (128, 256, 512, 512)
    encoder_resnets: int = 2
    decoder_resnets: int = 3
    groups: int = 32
    latent_channels: int = 16
    image_channels: int = 3
    norm_eps: float = 1e-6
    scaling: float = 0.9152  # diffusion latent = mean * scaling

    def __post_init__(self) -> None:
        if any(width % self.groups for width in self.channels):
            raise ValueError(f"channels {self.channels} do not divide into {self.groups} groups")


VAE = VaeConfig()
VAE_NANO = VaeConfig(channels=(16, 32, 48, 48), encoder_resnets=1, decoder_resnets=2, groups=8)


def vae_from_reference(params: dict[str, Any]) -> VaeConfig:
    """The configuration that the reference's constructor arguments `params` describe."""
    c = params["block_out_channels"]
    return VaeConfig(
        channels=(c[0], c[1], c[2], c[3]),
        encoder_resnets=params["layers_per_block"],
        decoder_resnets=params["layers_per_block"] + 1,
        groups=params["norm_num_groups"],
        latent_channels=params["latent_channels"],
        image_channels=params["in_channels"],
    )
