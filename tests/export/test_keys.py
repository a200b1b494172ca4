"""Keys and shapes: equal to the reference's lists, and errors that name what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from vr_trt.errors import ModelError
from vr_trt.export.config import (
    GENERATOR_3B,
    GENERATOR_7B,
    GENERATOR_NANO,
    VAE,
    VAE_NANO,
    VaeConfig,
    generator_3b_style,
    generator_from_reference,
)
from vr_trt.export.keys import (
    Shapes,
    check_keys,
    current_vae_key,
    expected_generator,
    expected_vae,
    is_rope_buffer,
)

GOLDEN = Path(__file__).parents[1] / "golden"
TINY_VAE = VaeConfig(channels=(8, 16, 24, 24), groups=8)


def golden_list(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    return loaded


def stored_shapes(name: str) -> Shapes:
    with safe_open(GOLDEN / name, framework="numpy") as file:
        names = file.keys()
        return {key: tuple(file.get_slice(key).get_shape()) for key in names}


def as_shapes(keys: dict[str, list[int]]) -> Shapes:
    return {key: tuple(shape) for key, shape in keys.items()}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("keys_3b.json", expected_generator(GENERATOR_3B)),
        ("keys_7b.json", expected_generator(GENERATOR_7B)),
        ("keys_vae.json", expected_vae(VAE)),
    ],
)
def test_full_size_keys_equal_the_reference(name: str, found: Shapes) -> None:
    assert found == as_shapes(golden_list(name)["keys"])


@pytest.mark.parametrize("name", ["v1_hd128", "v1_tiny", "v2_hd128", "v2_tiny"])
def test_small_generators_equal_their_weights(name: str) -> None:
    params = golden_list("dit_cases.json")["configs"][name]["params"]
    assert expected_generator(generator_from_reference(params)) == stored_shapes(
        f"dit_{name}_weights.safetensors"
    )


def test_small_vae_equals_its_weights() -> None:
    assert expected_vae(TINY_VAE) == stored_shapes("vae_tiny_weights.safetensors")


def test_rope_buffers_are_those_of_the_reference() -> None:
    listed = golden_list("keys_3b.json")
    assert [key for key in listed["keys"] if is_rope_buffer(key)] == listed["buffers"]


def test_unshared_last_block_of_the_3b_style_has_no_text_mlp() -> None:
    config = generator_3b_style(
        width=64, heads=2, head_width=32, layers=2, text_width=48, shared_from=2
    )
    last = {key for key in expected_generator(config) if key.startswith("blocks.1.")}
    assert "blocks.1.attn.proj_qkv.txt.weight" in last
    assert not [key for key in last if key.startswith(("blocks.1.mlp.txt", "blocks.1.ada.txt"))]
    assert "blocks.0.mlp.txt.proj_in.weight" in expected_generator(config)


def test_nano_vae_follows_its_own_counts() -> None:
    shapes = expected_vae(VAE_NANO)
    assert "encoder.down_blocks.0.resnets.1.norm1.weight" not in shapes
    assert "decoder.up_blocks.0.resnets.2.norm1.weight" not in shapes
    assert shapes["decoder.up_blocks.2.upsamplers.0.upscale_conv.weight"] == (128, 32, 1, 1, 1)
    assert shapes["decoder.conv_in.weight"][1] == GENERATOR_NANO.latent_channels == 48
    assert expected_generator(GENERATOR_NANO)["blocks.1.mlp.all.proj_in.weight"] == (128, 256)


def test_equal_keys_pass_in_any_order() -> None:
    shapes = expected_vae(TINY_VAE)
    check_keys(dict(reversed(shapes.items())), shapes, Path("vae.safetensors"))


def test_every_kind_of_fault_is_counted_and_five_are_named() -> None:
    expected = expected_generator(GENERATOR_NANO)
    names = list(expected)
    found: Shapes = {key: shape for key, shape in expected.items() if key not in names[:7]}
    found.update({f"stray.{index}": (1,) for index in range(6)})
    found.update({key: (*expected[key], 9) for key in names[20:28]})
    with pytest.raises(ModelError) as caught:
        check_keys(found, expected, Path("some/model.pth"))
    message = str(caught.value)
    assert message.startswith("some/model.pth ") and "\n" not in message
    assert "7 missing" in message and "6 extra" in message and "8 misshapen" in message
    assert all(name in message for name in names[:5]) and names[5] not in message
    assert "stray.4" in message and "stray.5" not in message
    shape = "x".join(map(str, expected[names[20]]))
    assert f"{names[20]} is {shape}x9, not {shape}" in message
    assert names[24] in message and names[25] not in message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("encoder.mid_block.attentions.0.query.weight", "to_q.weight"),
        ("decoder.mid_block.attentions.0.key.bias", "to_k.bias"),
        ("decoder.mid_block.attentions.0.value.weight", "to_v.weight"),
        ("encoder.mid_block.attentions.0.proj_attn.bias", "to_out.0.bias"),
    ],
)
def test_old_attention_names_are_renamed(old: str, new: str) -> None:
    assert current_vae_key(old) == f"{old[:7]}.mid_block.attentions.0.{new}"
    assert current_vae_key(old) in expected_vae(VAE)


def test_current_names_stay() -> None:
    assert all(current_vae_key(key) == key for key in expected_vae(VAE))
