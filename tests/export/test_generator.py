"""The plain generator: keys, shapes, and numbers that no golden vector covers."""

import pytest
import torch
from tests.generator_by_the_book import Book
from tests.networks import golden_json, loud_weights, make_generator, normal

from vr_trt.errors import UsageError
from vr_trt.export.config import (
    GENERATOR_3B,
    GENERATOR_7B,
    VAE,
    GeneratorConfig,
    VaeConfig,
    generator_3b_style,
    generator_7b_style,
    generator_from_reference,
    vae_from_reference,
)
from vr_trt.export.generator import Generator, time_waves
from vr_trt.export.golden import relative_rms
from vr_trt.export.vae import VideoVae

UNSHARED = generator_3b_style(
    width=36, heads=3, head_width=20, layers=3, text_width=10, shared_from=3
)
ALL_SHARED = generator_3b_style(
    width=24, heads=1, head_width=64, layers=2, text_width=7, shared_from=0
)
ODD_7B = generator_7b_style(width=40, heads=5, head_width=26, layers=3, text_width=12)
SINGLE_7B = generator_7b_style(width=16, heads=1, head_width=8, layers=1, text_width=3)
OTHERS = {"unshared": UNSHARED, "shared": ALL_SHARED, "odd 7b": ODD_7B, "one block": SINGLE_7B}


@pytest.mark.parametrize(
    ("name", "config"), [("keys_3b.json", GENERATOR_3B), ("keys_7b.json", GENERATOR_7B)]
)
def test_state_of_the_published_generators(name: str, config: GeneratorConfig) -> None:
    listed = golden_json(name)
    with torch.device("meta"):
        network = Generator(config)
    assert sum(p.numel() for p in network.parameters()) == listed["num_parameters"]
    assert [k for k, _ in network.named_buffers()] == listed["buffers"]
    assert generator_from_reference(listed["params"]) == config


def test_state_of_the_published_vae() -> None:
    listed = golden_json("keys_vae.json")
    with torch.device("meta"):
        network = VideoVae(VAE)
    for part, wanted in ((network.encoder, "encoder"), (network.decoder, "decoder")):
        count = sum(p.numel() for p in part.parameters())
        assert count == listed[f"num_parameters_{wanted}"]
    assert vae_from_reference(listed["params"]) == VAE


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    ("size", "text", "timestep"),
    [((1, 2, 2), 1, 1000.0), ((5, 6, 10), 5, 12.5), ((1, 40, 48), 3, 640.0)],
)
def test_numbers_are_those_of_the_book(
    name: str, size: tuple[int, int, int], text: int, timestep: float
) -> None:
    config = OTHERS[name]
    weights = loud_weights(config)
    video, prompt = normal(*size, 33), normal(text, config.text_width, seed=1)
    wanted = Book(config, weights).predict(video, prompt, timestep)
    ours = make_generator(config, weights)(video, prompt, torch.tensor(timestep))
    assert ours.shape == (*size, 16)
    assert relative_rms(ours.flatten(0, 2), wanted) <= 2e-5


def test_time_waves_start_with_sines() -> None:
    waves = time_waves(torch.tensor(250.0))
    angles = 250 * 10000.0 ** (-torch.arange(128) / 128)
    assert torch.allclose(waves[:128], angles.sin(), atol=1e-4)
    assert torch.allclose(waves[128:], angles.cos(), atol=1e-4)


def test_windows_are_kept_apart_by_size_and_prompt() -> None:
    network = make_generator(UNSHARED, loud_weights(UNSHARED))
    at = torch.tensor(1000.0)
    small, large = normal(1, 4, 4, 33), normal(2, 4, 6, 33)
    short, long = normal(2, 10), normal(9, 10)
    first = network(small, short, at)
    network(large, short, at), network(small, long, at)
    assert torch.equal(network(small, short, at), first)
    assert not torch.allclose(network(small, long, at), first, atol=1e-3)


@pytest.mark.parametrize("config", [UNSHARED, ODD_7B], ids=["3b", "7b"])
def test_bf16_stays_near(config: GeneratorConfig) -> None:
    weights = loud_weights(config)
    video, text = normal(2, 4, 6, 33), normal(5, config.text_width)
    exact = make_generator(config, weights)(video, text, torch.tensor(1000.0))
    half = make_generator(config, weights).to(torch.bfloat16)
    rough = half(video.bfloat16(), text.bfloat16(), torch.tensor(1000.0))
    assert rough.dtype == torch.bfloat16 and rough.isfinite().all()
    assert relative_rms(rough, exact) < 0.05


def test_sizes_come_from_the_reference_s_arguments() -> None:
    configs = golden_json("dit_cases.json")["configs"]
    old, new = (configs[name]["params"] for name in ("v1_tiny", "v2_tiny"))
    sizes = {"expand_ratio": 3, "norm_eps": 1e-3, "vid_in_channels": 9, "vid_out_channels": 4}
    seven, three = (generator_from_reference({**params, **sizes}) for params in (old, new))
    assert (seven.mlp_width, three.mlp_width) == (3 * 64, 256)
    assert (seven.norm_eps, three.norm_eps) == (1e-3, 1e-3)
    assert (three.vid_in_channels, three.vid_out_channels) == (9, 4)
    assert (seven.shared_from, three.shared_from) == (seven.layers, 2)
    assert (seven.output_norm, three.output_norm) == (False, True)
    assert (seven.last_block_text, three.last_block_text) == (True, False)
    wider = generator_from_reference({**new, "vid_dim": 100, "txt_dim": 100, "emb_dim": 600})
    assert wider.mlp_width == 512  # 266, up to a multiple of 256


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("patch_size", [1, 4, 4]),
        ("rope_type", "rope3d"),
        ("mlp_type", "moe"),
        ("window", [[4, 3, 3]] * 3 + [[2, 2, 2]]),
        ("window_method", ["720pwin_by_size_bysize"] * 4),
        ("emb_dim", 64),
    ],
)
def test_another_architecture_is_refused_by_name(entry: str, value: object) -> None:
    params = golden_json("dit_cases.json")["configs"]["v2_tiny"]["params"]
    with pytest.raises(UsageError, match=entry):
        generator_from_reference({**params, entry: value})


@pytest.mark.parametrize(
    "wrong",
    [
        {"head_width": 15},
        {"heads": 0},
        {"layers": 0},
    ],
)
def test_impossible_generators_are_refused(wrong: dict[str, int]) -> None:
    sizes = {"width": 8, "heads": 1, "head_width": 8, "layers": 1, "text_width": 4}
    with pytest.raises(ValueError, match="generator"):
        generator_7b_style(**{**sizes, **wrong})


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="groups"):
        VaeConfig(channels=(8, 12, 16, 16), groups=8)
