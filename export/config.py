"""The shapes of the networks, by configuration.

Source: network spec §1 (generator), §6 (VAE). The 3B and 7B generators differ in rope, MLP,
weight sharing and head; the configuration says which, the classes hold one code path each.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from vr_trt.errors import UsageError

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


WINDOW_METHODS = ("720pwin_by_size_bysize", "720pswin_by_size_bysize")  # even and odd blocks
# What the networks here are built for; anything else in the reference's arguments is refused.
FIXED_GENERATOR: dict[str, tuple[Any, ...]] = {
    "patch_size": ([1, 2, 2],),
    "qk_bias": (False,),
    "qk_rope": (True,),
    "rope_type": ("mmrope3d",),
    "mlp_type": ("swiglu", "normal"),
    "shared_mlp": (False,),
    "shared_qkv": (False,),
}
FIXED_VAE: dict[str, tuple[Any, ...]] = {
    "temporal_scale_num": (2,),
    "spatial_downsample_factor": (8,),
    "use_quant_conv": (False,),
    "use_post_quant_conv": (False,),
}


def _refuse_others(params: dict[str, Any], fixed: dict[str, tuple[Any, ...]]) -> None:
    for name, allowed in fixed.items():
        if name in params and params[name] not in allowed:
            raise UsageError(
                f"a network with {name} {params[name]!r} cannot be built: "
                f"only {' or '.join(map(repr, allowed))}"
            )


def generator_from_reference(params: dict[str, Any]) -> GeneratorConfig:
    """The configuration that the reference's constructor arguments `params` describe.

    UsageError for a network that differs in more than its sizes from the published ones.
    """
    width, layers, expand = params["vid_dim"], params["num_layers"], params.get("expand_ratio", 4)
    methods = [WINDOW_METHODS[layer % 2] for layer in range(layers)]
    fixed: dict[str, tuple[Any, ...]] = {
        **FIXED_GENERATOR,
        "txt_dim": (width,),
        "emb_dim": (6 * width,),
        "rope_dim": (params["head_dim"],),
        "window": ([[4, 3, 3]] * layers,),
        "window_method": (methods,),
    }
    _refuse_others(params, fixed)
    swiglu = params["mlp_type"] == "swiglu"
    return GeneratorConfig(
        width=width,
        heads=params["heads"],
        head_width=params["head_dim"],
        layers=layers,
        text_width=params["txt_in_dim"],
        rope="language" if "rope_type" in params else "pixel",
        mlp="swiglu" if swiglu else "gelu",
        mlp_width=swiglu_width(width, expand) if swiglu else expand * width,
        shared_from=params.get("mm_layers", layers),
        output_norm=bool(params.get("vid_out_norm")),
        last_block_text="mm_layers" not in params,
        vid_in_channels=params["vid_in_channels"],
        vid_out_channels=params["vid_out_channels"],
        norm_eps=params.get("norm_eps", 1e-5),
    )


GENERATOR_3B = generator_3b_style(
    width=2560, heads=20, head_width=128, layers=32, text_width=5120, shared_from=10
)
GENERATOR_7B = generator_7b_style(width=3072, heads=24, head_width=128, layers=36, text_width=5120)
# Small widths throw pictures away if the latent is as narrow as the published VAE's: nano's has
# 48 channels. The generator's width has room for a patch of them (192) and for 63 features.
NANO_LATENT_CHANNELS = 48
GENERATOR_NANO = replace(
    generator_3b_style(width=256, heads=3, head_width=32, layers=2, text_width=64, shared_from=1),
    mlp_width=128,
    vid_in_channels=2 * NANO_LATENT_CHANNELS + 1,
    vid_out_channels=NANO_LATENT_CHANNELS,
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
VAE_NANO = VaeConfig(
    channels=(16, 32, 52, 52),
    encoder_resnets=1,
    decoder_resnets=1,
    groups=2,
    latent_channels=NANO_LATENT_CHANNELS,
)


# Nano's share of each band of detail (see `kernels.detail`). Its code is too narrow for more: what
# it cannot carry would be lost.
DETAIL_NANO = (0.6, 0.3, 0.3)


def vae_from_reference(params: dict[str, Any]) -> VaeConfig:
    """The configuration that the reference's constructor arguments `params` describe."""
    _refuse_others(params, FIXED_VAE)
    first, second, third, last = params["block_out_channels"]
    return VaeConfig(
        channels=(first, second, third, last),
        encoder_resnets=params["layers_per_block"],
        decoder_resnets=params["layers_per_block"] + 1,
        groups=params["norm_num_groups"],
        latent_channels=params["latent_channels"],
        image_channels=params["in_channels"],
    )
