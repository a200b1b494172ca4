"""The folded generator equals the plain one, as a whole and fold by fold."""

from typing import cast

import pytest
import torch
from tests.generator_by_the_book import Book
from tests.networks import (
    GOLDEN_GENERATORS,
    golden_generator,
    golden_json,
    golden_tensors,
    loud_weights,
    make_generator,
    normal,
)
from torch import Tensor

from vr_trt.errors import ModelError
from vr_trt.export.config import GeneratorConfig, generator_3b_style, generator_7b_style
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.folded_generator import (
    AnySizeGenerator,
    FoldedBlock,
    FoldedGenerator,
    StaticGenerator,
)
from vr_trt.export.generator import Block, Generator
from vr_trt.export.golden import relative_rms
from vr_trt.export.window_attention import rotate_halves, rotate_neighbours
from vr_trt.kernels.windows import any_size_tables

TOLERANCE = 2e-5
SHARED = generator_3b_style(width=40, heads=2, head_width=20, layers=3, text_width=9, shared_from=1)
UNSHARED = generator_3b_style(
    width=40, heads=3, head_width=64, layers=2, text_width=9, shared_from=2
)
PLAIN_7B = generator_7b_style(width=40, heads=5, head_width=26, layers=2, text_width=9)
CONFIGS = {"3b": SHARED, "3b unshared": UNSHARED, "7b": PLAIN_7B}
CASES = [
    (name, case)
    for name, listed in golden_json("dit_cases.json")["configs"].items()
    for case in listed["cases"]
]


def to_latent(video: Tensor) -> Tensor:
    """[T, h, w, 16] to [1, 16, T, h, w]."""
    return video.permute(3, 0, 1, 2)[None].contiguous()


def velocity(
    folded: FoldedGenerator, video: Tensor, *, any_size: bool, dtype: torch.dtype = torch.float32
) -> Tensor:
    """noise - restored [T, h, w, 16]: the noise would hide an error of v."""
    T, h, w, _ = video.shape
    grid, config = (T, h // 2, w // 2), folded.config
    noise, latent = to_latent(video[..., :16]).to(dtype), to_latent(video[..., 16:32]).to(dtype)
    if any_size:
        tables = any_size_tables(grid, len(folded.text), config.head_width, config.rope)
        inputs = [torch.from_numpy(table) for table in tables.values()]
        restored = AnySizeGenerator(folded)(noise, latent, inputs)
    else:
        restored = StaticGenerator(folded, grid)(noise, latent)
    assert restored.dtype == dtype
    return (noise - restored)[0].permute(1, 2, 3, 0)


def with_mask(video: Tensor) -> Tensor:
    """The mask channel is one in every deployed call."""
    return torch.cat([video[..., :32], torch.ones_like(video[..., :1])], -1)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_folded_equals_plain_on_every_golden_case(name: str, case: str) -> None:
    given, weights = golden_tensors(f"dit_input_{case}"), golden_tensors(f"dit_{name}_weights")
    T, h, w = given["vid_shape"].flatten().tolist()
    video, timestep = with_mask(given["vid"].view(T, h, w, -1)), float(given["timestep"])
    wanted = golden_generator(name)(video, given["txt"], given["timestep"])
    config = GOLDEN_GENERATORS[name]
    folded = fold_generator(config, weights, given["txt"], timestep=timestep)
    for any_size in (False, True):
        assert relative_rms(velocity(folded, video, any_size=any_size), wanted) <= TOLERANCE


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("size", "text", "timestep"),
    [((1, 2, 2), 1, 1000.0), ((9, 6, 4), 60, 77.0), ((2, 4, 100), 3, 1000.0)],
)
def test_folded_equals_plain_with_loud_weights(
    name: str, size: tuple[int, int, int], text: int, timestep: float
) -> None:
    config = CONFIGS[name]
    weights = loud_weights(config)
    video, prompt = with_mask(normal(*size, 33)), normal(text, config.text_width, seed=1)
    wanted = make_generator(config, weights)(video, prompt, torch.tensor(timestep))
    folded = fold_generator(config, weights, prompt, timestep=timestep)
    for any_size in (False, True):
        assert relative_rms(velocity(folded, video, any_size=any_size), wanted) <= TOLERANCE


def test_one_folded_network_serves_two_sizes() -> None:
    weights, text = loud_weights(SHARED), normal(4, 9)
    folded = fold_generator(SHARED, weights, text)
    for size in ((1, 4, 4), (5, 40, 48)):
        video = with_mask(normal(*size, 33))
        wanted = make_generator(SHARED, weights)(video, text, torch.tensor(1000.0))
        assert relative_rms(velocity(folded, video, any_size=False), wanted) <= TOLERANCE


class Folds:
    """A plain network beside its folded form, and what the folds are made of."""

    def __init__(self, config: GeneratorConfig, timestep: float = 400.0) -> None:
        self.config, self.weights = config, loud_weights(config)
        self.text = normal(5, config.text_width)
        self.plain = make_generator(config, self.weights)
        self.folded = fold_generator(config, self.weights, self.text, timestep=timestep)
        self.emb = Book(config, self.weights).embed(timestep).float().view(-1, 2, 3)

    def blocks(self, layer: int) -> tuple[Block, FoldedBlock]:
        return cast(Block, self.plain.blocks[layer]), cast(FoldedBlock, self.folded.blocks[layer])

    def modulation(self, layer: int, modality: str, part: str) -> tuple[Tensor, Tensor, Tensor]:
        """Shift, scale, gate."""
        tag = "all" if self.config.shared(layer) else modality
        parts = self.emb[:, 0 if part == "attn" else 1].unbind(1)
        names = (f"blocks.{layer}.ada.{tag}.{part}_{name}" for name in ("shift", "scale", "gate"))
        shift, scale, gate = (p + self.weights[n] for p, n in zip(parts, names, strict=True))
        return shift, scale, gate


@pytest.fixture(scope="module", params=CONFIGS)
def folds(request: pytest.FixtureRequest) -> Folds:
    return Folds(CONFIGS[request.param])


def test_scale_and_shift_are_in_the_linear_after_the_norm(folds: Folds) -> None:
    block, folded = folds.blocks(0)
    shift, scale, _ = folds.modulation(0, "vid", "attn")
    c, x = folds.config, normal(7, folds.config.width)
    order = torch.cat([torch.arange(0, c.head_width, 2), torch.arange(1, c.head_width, 2)])
    wanted = block.attn.proj_qkv("vid", x * scale + shift).view(7, 3, c.heads, c.head_width)
    wanted = torch.cat([wanted[:, :2, :, order], wanted[:, 2:]], 1)  # v keeps its order
    assert relative_rms(folded.video.qkv(x), wanted.flatten(1)) <= 1e-5
    norm = block.attn.norm_k.pick("vid").get_parameter("weight")
    assert torch.equal(folded.video.norm_k.weight, norm[order])


def test_scale_and_shift_are_in_the_mlp(folds: Folds) -> None:
    block, folded = folds.blocks(0)
    shift, scale, gate = folds.modulation(0, "vid", "mlp")
    x = normal(7, folds.config.width)
    rms = x / (x.square().mean(-1, keepdim=True) + folds.config.norm_eps).sqrt()
    wanted = block.mlp("vid", rms * scale + shift) * gate
    attended = torch.zeros(7, folded.video.out.in_features)
    ours = folded.video.advance(x - folded.video.out.bias, attended) - x
    assert relative_rms(ours, wanted) <= 1e-5


def test_the_gate_is_in_the_linear_before_it(folds: Folds) -> None:
    block, folded = folds.blocks(0)
    *_, gate = folds.modulation(0, "vid", "attn")
    x = normal(7, folded.video.out.in_features)
    assert relative_rms(folded.video.out(x), block.attn.proj_out("vid", x) * gate) <= 1e-5


def test_text_has_its_own_folds_where_weights_are_not_shared() -> None:
    folds = Folds(PLAIN_7B)
    block, folded = folds.blocks(0)
    *_, gate = folds.modulation(0, "txt", "attn")
    x = normal(7, folded.text.out.in_features)
    assert relative_rms(folded.text.out(x), block.attn.proj_out("txt", x) * gate) <= 1e-5


def test_the_mask_is_in_the_bias_of_the_patches(folds: Folds) -> None:
    video = normal(2, 4, 6, 33)
    video[..., 32] = 1
    latents = torch.cat([to_latent(video[..., :16]), to_latent(video[..., 16:32])], 1)
    ours = folds.folded.patch_in(folds.folded._tokens(latents))
    assert relative_rms(ours, folds.plain.vid_in(video)) <= 1e-5
    video[..., 32] = 0
    assert relative_rms(ours, folds.plain.vid_in(video)) > 1e-2  # the mask matters


def test_the_prompt_is_a_constant(folds: Folds) -> None:
    assert relative_rms(folds.folded.text, folds.plain.txt_in(folds.text)) <= 1e-5


def test_the_head_takes_norm_and_modulation_and_turns_the_sign(folds: Folds) -> None:
    config, x = folds.config, normal(12, folds.config.width)
    emb = folds.emb.reshape(-1)
    wanted = folds.plain.vid_out(folds.plain._head(x, emb), (2, 2, 3))
    if config.output_norm:
        x = x / (x.square().mean(-1, keepdim=True) + config.norm_eps).sqrt()
    ours = folds.folded._latent(folds.folded.patch_out(x), torch.empty(1, 16, 2, 4, 6))
    assert relative_rms(-ours, to_latent(wanted)) <= 1e-5


@pytest.mark.parametrize("head_width", [2, 26, 128])
def test_rotated_halves_are_rotated_neighbours_in_another_order(head_width: int) -> None:
    x, angle = normal(9, 3, head_width), normal(9, 1, head_width // 2, seed=1)
    order = torch.cat([torch.arange(0, head_width, 2), torch.arange(1, head_width, 2)])
    wanted = rotate_neighbours(x, angle.cos(), angle.sin())[..., order]
    ours = rotate_halves(x[..., order], angle.cos(), angle.sin())
    assert torch.allclose(ours, wanted, atol=1e-6)
    assert not torch.allclose(ours, x[..., order], atol=0.1)


@pytest.mark.parametrize("name", ["3b unshared", "7b"])
def test_the_last_text_is_only_read_as_keys_and_values(name: str) -> None:
    config = CONFIGS[name]
    last, weights, text = f"blocks.{config.layers - 1}.", loud_weights(config), normal(5, 9)
    idle = [f"{last}{part}" for part in ("attn.proj_out.txt.", "attn.norm_q.txt.", "mlp.txt.",
            "ada.txt.mlp", "ada.txt.attn_gate")]  # fmt: skip
    other = {
        key: value + 1 if key.startswith(tuple(idle)) else value for key, value in weights.items()
    }
    assert any(not torch.equal(weights[key], other[key]) for key in weights)
    state = fold_generator(config, weights, text).state_dict()
    same = fold_generator(config, other, text).state_dict()
    assert all(torch.equal(value, same[key]) for key, value in state.items())
    kept = {key.removeprefix(f"{last}text.") for key in state if key.startswith(f"{last}text.")}
    assert kept == {"kv.weight", "kv.bias", "norm_k.weight"}


def test_shared_blocks_stay_shared_but_for_the_last() -> None:
    keys = fold_generator(SHARED, loud_weights(SHARED), normal(5, 9)).state_dict().keys()
    texts = {key.split(".")[1] for key in keys if ".text." in key}
    assert texts == {"0", "2"}


@pytest.mark.parametrize("name", ["3b", "7b"])
@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.05), (torch.float16, 5e-3)])
def test_sixteen_bits_stay_near(
    name: str, any_size: bool, dtype: torch.dtype, limit: float
) -> None:
    config, text = CONFIGS[name], normal(5, 9)
    weights, video = loud_weights(config), with_mask(normal(3, 6, 8, 33))
    exact = velocity(fold_generator(config, weights, text), video, any_size=any_size)
    half = fold_generator(config, weights, text, dtype=dtype)
    assert {value.dtype for value in half.state_dict().values()} == {dtype}
    rough = velocity(half, video, any_size=any_size, dtype=dtype)
    assert relative_rms(rough, exact) < limit


def test_weights_are_read_one_at_a_time_and_as_stored() -> None:
    """A mapping that reads lazily from fp16 folds in fp32."""
    weights = {k: v.half() for k, v in loud_weights(SHARED).items()}
    upcast = {k: v.float() for k, v in weights.items()}
    text = normal(5, 9)
    ours, wanted = fold_generator(SHARED, weights, text), fold_generator(SHARED, upcast, text)
    for key, value in wanted.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)


def test_windows_of_the_plain_network_move_to_its_device() -> None:
    with torch.device("meta"):
        network = Generator(SHARED)
        v = network(torch.empty(2, 4, 6, 33), torch.empty(5, 9), torch.empty(()))
    assert v.shape == (2, 4, 6, 16) and v.is_meta


def test_a_weight_that_sixteen_bits_cannot_hold_is_named() -> None:
    weights = loud_weights(SHARED)
    weights["vid_in.proj.bias"] = torch.full((40,), 1e6)
    fold_generator(SHARED, weights, normal(2, 9), dtype=torch.bfloat16)
    with pytest.raises(ModelError, match="weight patch_in.bias .* float16 cannot hold"):
        fold_generator(SHARED, weights, normal(2, 9), dtype=torch.float16)
