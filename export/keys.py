"""The keys and shapes that a network's weights have, as functions of its configuration.

Source: network spec §2 (generator) and §6 (VAE). Shapes are PyTorch's: a linear layer's weight
is (out, in), a convolution's (out, in, time, height, width).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from vr_trt.errors import ModelError
from vr_trt.export.config import GeneratorConfig, VaeConfig

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

PATCH = 4  # pixels of the latent in one token: 1 x 2 x 2
SINUSOIDS = 256  # width of the timestep's embedding
MODULATIONS = ("shift", "scale", "gate")
NAMED_AT_MOST = 5  # keys that an error spells out, of each kind
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
ROPE_SUFFIX = ".attn.rope.rope.freqs"


def is_rope_buffer(key: str) -> bool:
    """Whether `key` names a block's rope frequencies: constants that we recompute, never read."""
    return key.endswith(ROPE_SUFFIX)


def expected_generator(config: GeneratorConfig) -> Shapes:
    """Every key of a generator's state dict with its shape (spec §2)."""
    width = config.width
    shapes = {
        **_layer("vid_in.proj", (width, config.vid_in_channels * PATCH)),
        **_layer("txt_in", (width, config.text_width)),
        **_layer("emb_in.proj_in", (width, SINUSOIDS)),
        **_layer("emb_in.proj_hid", (width, width)),
        **_layer("emb_in.proj_out", (6 * width, width)),
        **_layer("vid_out.proj", (config.vid_out_channels * PATCH, width)),
    }
    if config.output_norm:
        for key in ("vid_out_norm.weight", "vid_out_ada.out_shift", "vid_out_ada.out_scale"):
            shapes[key] = (width,)
    for index in range(config.layers):
        shapes.update(_block(f"blocks.{index}", index, config))
    return shapes


def rope_count(config: GeneratorConfig) -> int:
    """Rotation frequencies per axis of a block's rope buffer (spec §4.4)."""
    rotated = config.head_width if config.rope == "language" else config.head_width // 2
    return rotated // 3 // 2


def _block(name: str, index: int, config: GeneratorConfig) -> Shapes:
    width, inner = config.width, config.heads * config.head_width
    shapes: Shapes = {name + ROPE_SUFFIX: (rope_count(config),)}
    for branch in ("all",) if config.shared(index) else ("vid", "txt"):
        shapes[f"{name}.attn.proj_qkv.{branch}.weight"] = (3 * inner, width)
        shapes.update(_layer(f"{name}.attn.proj_out.{branch}", (width, inner)))
        shapes[f"{name}.attn.norm_q.{branch}.weight"] = (config.head_width,)
        shapes[f"{name}.attn.norm_k.{branch}.weight"] = (config.head_width,)
        # The 3B's last block never continues the text, so an unshared one has no text MLP (§2).
        last = index == config.layers - 1
        if branch == "txt" and last and not config.last_block_text:
            continue
        shapes.update(_mlp(f"{name}.mlp.{branch}", config))
        for part in ("attn", "mlp"):
            for modulation in MODULATIONS:
                shapes[f"{name}.ada.{branch}.{part}_{modulation}"] = (width,)
    return shapes


def _mlp(name: str, config: GeneratorConfig) -> Shapes:
    width, hidden = config.width, config.mlp_width
    if config.mlp == "gelu":
        return {
            **_layer(f"{name}.proj_in", (hidden, width)),
            **_layer(f"{name}.proj_out", (width, hidden)),
        }
    return {
        f"{name}.proj_in_gate.weight": (hidden, width),
        f"{name}.proj_in.weight": (hidden, width),
        f"{name}.proj_out.weight": (width, hidden),
    }


def expected_vae(config: VaeConfig) -> Shapes:
    """Every key of the VAE's state dict with its shape (spec §6)."""
    return {**_encoder(config), **_decoder(config)}


def _encoder(config: VaeConfig) -> Shapes:
    widths, top = config.channels, config.channels[-1]
    shapes = _conv("encoder.conv_in", config.image_channels, widths[0])
    came = widths[0]
    for level, width in enumerate(widths):
        block = f"encoder.down_blocks.{level}"
        shapes.update(_resnets(block, config.encoder_resnets, came, width))
        if level < len(widths) - 1:
            frames = 1 if level == 0 else 3  # the first halving is of the picture alone
            shapes.update(_conv(f"{block}.downsamplers.0.conv", width, width, (frames, 3, 3)))
        came = width
    shapes.update(_middle("encoder", top))
    shapes.update(_layer("encoder.conv_norm_out", (top,)))
    shapes.update(_conv("encoder.conv_out", top, 2 * config.latent_channels))  # mean, logvar
    return shapes


def _decoder(config: VaeConfig) -> Shapes:
    widths, top = config.channels[::-1], config.channels[-1]
    shapes = _conv("decoder.conv_in", config.latent_channels, top)
    shapes.update(_middle("decoder", top))
    came = top
    for level, width in enumerate(widths):
        block = f"decoder.up_blocks.{level}"
        shapes.update(_resnets(block, config.decoder_resnets, came, width))
        if level < len(widths) - 1:
            phases = 8 if level < 2 else 4  # 2 x 2 pixels, and 2 frames on the first two levels
            up = f"{block}.upsamplers.0"
            shapes.update(_conv(f"{up}.upscale_conv", width, phases * width, (1, 1, 1)))
            shapes.update(_conv(f"{up}.conv", width, width))
        came = width
    shapes.update(_layer("decoder.conv_norm_out", (widths[-1],)))
    shapes.update(_conv("decoder.conv_out", widths[-1], config.image_channels))
    return shapes


def _middle(side: str, width: int) -> Shapes:
    attention = f"{side}.mid_block.attentions.0"
    shapes = _resnets(f"{side}.mid_block", 2, width, width)
    shapes.update(_layer(f"{attention}.group_norm", (width,)))
    for layer in OLD_ATTENTION.values():
        shapes.update(_layer(f"{attention}.{layer}", (width, width)))
    return shapes


def _resnets(block: str, count: int, came: int, width: int) -> Shapes:
    shapes: Shapes = {}
    for index in range(count):
        name = f"{block}.resnets.{index}"
        shapes.update(_layer(f"{name}.norm1", (came,)))
        shapes.update(_conv(f"{name}.conv1", came, width))
        shapes.update(_layer(f"{name}.norm2", (width,)))
        shapes.update(_conv(f"{name}.conv2", width, width))
        if came != width:
            shapes.update(_conv(f"{name}.conv_shortcut", came, width, (1, 1, 1)))
        came = width
    return shapes


def _conv(name: str, came: int, width: int, kernel: Shape = (3, 3, 3)) -> Shapes:
    return _layer(name, (width, came, *kernel))


def _layer(name: str, weight: Shape) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


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
