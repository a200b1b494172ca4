"""The generator on our kernels against the folded network in PyTorch; see kernel_runs."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from tests.kernel_runs import DEVICE, HALVES
from tests.networks import (
    GOLDEN_GENERATORS,
    golden_generator,
    golden_json,
    golden_tensors,
    loud_weights,
    normal,
)
from torch import Tensor

from vr_trt.engines.triton_generator import TritonGenerator
from vr_trt.engines.triton_plan import TritonPlan, write_plan
from vr_trt.errors import ModelError
from vr_trt.export.config import GeneratorConfig, generator_3b_style, generator_7b_style
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.folded_generator import FoldedGenerator, StaticGenerator
from vr_trt.export.golden import relative_rms
from vr_trt.runtime.session import call
from vr_trt.runtime.triton_session import load, open_device

CONFIGS = {
    "3b": generator_3b_style(
        width=64, heads=2, head_width=32, layers=4, text_width=9, shared_from=1
    ),
    "3b unshared": generator_3b_style(
        width=40, heads=1, head_width=64, layers=3, text_width=9, shared_from=3
    ),
    "7b": generator_7b_style(width=72, heads=2, head_width=32, layers=2, text_width=9),
}
LARGEST_RATIO = 1.2  # of our error in 16 bits to PyTorch's own


def folded(config: GeneratorConfig, dtype: torch.dtype, text: int = 5) -> FoldedGenerator:
    prompt = normal(text, config.text_width, seed=1)
    return fold_generator(config, loud_weights(config), prompt, dtype=dtype).to(DEVICE)


def restored(stage: TritonGenerator, noise: Tensor, latent: Tensor) -> Tensor:
    """What a stage gives whose buffers hold nothing but NaN before."""
    kept = [getattr(stage._buffers, field.name) for field in fields(stage._buffers)]
    for tensor in (*kept[:-1], *stage._buffers.codes.values()):
        tensor.copy_(torch.full_like(tensor, torch.nan, dtype=torch.float32))
    stage.outputs["restored"].fill_(torch.nan)
    stage.inputs["noise"].copy_(noise)
    stage.inputs["latent"].copy_(latent)
    stage.run()
    return stage.outputs["restored"].clone()


def latents(grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Noise and latent."""
    T, h, w = grid
    noise, latent = (normal(1, 16, T, 2 * h, 2 * w, seed=seed).to(DEVICE) for seed in (2, 3))
    return noise, latent


@pytest.mark.parametrize("name", CONFIGS)
def test_as_near_to_fp32_as_pytorch_in_the_same_precision(name: str) -> None:
    config, grid = CONFIGS[name], (5, 3, 4)
    noise, latent = latents(grid)
    for dtype in HALVES:
        network = folded(config, dtype)
        ours = restored(TritonGenerator(network, grid), noise, latent).float()
        # In fp32 with the weights as they are in this precision: both runs have the same.
        wide = folded(config, torch.float32)
        wide.load_state_dict({k: v.float() for k, v in network.state_dict().items()})
        exact = StaticGenerator(wide, grid).to(DEVICE)(noise, latent)
        plain = StaticGenerator(network, grid).to(DEVICE)(noise.to(dtype), latent.to(dtype))
        v = noise - exact  # the noise would hide an error of v
        limit = LARGEST_RATIO * relative_rms(noise - plain.float(), v)
        assert relative_rms(noise - ours, v) <= limit


if DEVICE == "cpu":  # in fp32 the kernels are for the interpreter only

    @pytest.mark.parametrize("grid", [(1, 1, 1), (2, 1, 7)], ids=str)
    @pytest.mark.parametrize("name", CONFIGS)
    def test_equal_to_pytorch_in_fp32(name: str, grid: tuple[int, int, int]) -> None:
        noise, latent = latents(grid)
        network = folded(CONFIGS[name], torch.float32)
        v = noise - restored(TritonGenerator(network, grid), noise, latent)
        assert relative_rms(v, noise - StaticGenerator(network, grid)(noise, latent)) <= 2e-5

    def test_the_golden_network() -> None:
        """Of the 3B's kind, with the reference's own weights, text and latents."""
        name, case = "v2_tiny", golden_json("dit_cases.json")["configs"]["v2_tiny"]["cases"][0]
        given = golden_tensors(f"dit_input_{case}")
        T, h, w = given["vid_shape"].flatten().tolist()
        video = given["vid"].view(T, h, w, -1).permute(3, 0, 1, 2)[None]
        network = fold_generator(
            GOLDEN_GENERATORS[name], golden_tensors(f"dit_{name}_weights"), given["txt"],
            timestep=float(given["timestep"]),
        )  # fmt: skip
        noise, latent = video[:, :16].contiguous(), video[:, 16:32].contiguous()
        v = noise - restored(TritonGenerator(network, (T, h // 2, w // 2)), noise, latent)
        video = torch.cat([video[:, :32], torch.ones_like(video[:, :1])], 1)[0].permute(1, 2, 3, 0)
        wanted = golden_generator(name)(video, given["txt"], given["timestep"])
        assert relative_rms(v[0].permute(1, 2, 3, 0), wanted) <= 2e-5


def test_the_same_again_and_nothing_is_left_over() -> None:
    grid, (noise, latent) = (3, 2, 2), latents((3, 2, 2))
    stage = TritonGenerator(folded(CONFIGS["3b"], torch.float16), grid)
    once = restored(stage, noise, latent)
    other = restored(stage, latent, noise)
    assert torch.equal(once, restored(stage, noise, latent)) and not torch.equal(once, other)
    stage.arena.memory.fill_(0xFF)  # NaN: what a stage leaves with which it shares the arena
    assert torch.equal(once, restored(stage, noise, latent))


def test_heads_without_a_kernel_are_refused() -> None:
    config = generator_7b_style(width=40, heads=5, head_width=26, layers=2, text_width=9)
    with pytest.raises(ModelError, match="not 26: choose another --backend"):
        TritonGenerator(folded(config, torch.float16), (1, 2, 2))


def test_a_plan_runs_as_the_network_it_was_made_from(tmp_path: Path) -> None:
    config, grid = CONFIGS["3b"], (2, 1, 3)
    network, (noise, latent) = folded(config, torch.float16), latents(grid)
    plan = TritonPlan(
        stage="generator",
        config=config,
        precision="fp16",
        sizes=tuple(noise.shape),
        state=network.state_dict(),
    )
    write_plan(plan, tmp_path / "plan")
    path = tmp_path / "plan"
    session = load(path, "generator", open_device([path], DEVICE))
    assert dict(session.inputs) == {"noise": noise.shape, "latent": noise.shape}
    given = {"noise": noise.cpu().numpy(), "latent": latent.cpu().numpy()}
    ours = call(session, given)["restored"].numpy()
    wanted = restored(TritonGenerator(network, grid), noise, latent)
    assert torch.equal(torch.from_numpy(ours).to(DEVICE), wanted)
