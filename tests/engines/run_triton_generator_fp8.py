"""The generator in fp8 on our kernels against PyTorch's emulation of it; see kernel_runs.

The emulation is what the graph in fp8 computes, too: see tests/export/test_quantise.py.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.engines.run_triton_generator import folded, latents, restored
from tests.kernel_runs import DEVICE

from vr_trt.engines.triton_generator import TritonGenerator
from vr_trt.engines.triton_plan import TritonPlan, write_plan
from vr_trt.engines.triton_products import E4m3Linear, e4m3_network, quantised_state
from vr_trt.engines.triton_stages import Shared, open_stage
from vr_trt.errors import ModelError
from vr_trt.export.calibrate import Sample, amax_of, observe
from vr_trt.export.calibration_table import CalibrationTable
from vr_trt.export.config import generator_3b_style, generator_7b_style
from vr_trt.export.folded_generator import FoldedGenerator, StaticGenerator
from vr_trt.export.fp8_network import quantise_network
from vr_trt.export.golden import relative_rms

GRID = (3, 3, 4)
# Shared weights from block 1 on, then none; both kinds of MLP and of head.
CONFIGS = {
    "3b": generator_3b_style(
        width=64, heads=2, head_width=32, layers=4, text_width=9, shared_from=1
    ),
    "3b unshared": generator_3b_style(
        width=48, heads=1, head_width=64, layers=3, text_width=9, shared_from=3
    ),
    "7b": generator_7b_style(width=80, heads=2, head_width=32, layers=2, text_width=9),
}
# Video and text apart, the reader of attention, of the norm and of the activation.
WIDE = ("blocks.0.text.out", "blocks.0.video.mlp_out", "blocks.1.video.mlp_in")
LARGEST_RATIO = 1.2  # of our error in 16 bits to PyTorch's own
# In fp32 only codes differ that lie at the very edge between two values.
SAME = 0.02  # of what fp8 changes


def calibrated(network: FoldedGenerator, wide: tuple[str, ...] = ()) -> CalibrationTable:
    """A table of what the network sees."""
    noise, latent = latents(GRID)
    return CalibrationTable(
        model="tiny", weights="0" * 64, method="amax", clips=("clip.mp4",), windows=1, wide=wide,
        amax=amax_of(observe(network, [Sample(latent, noise, noise)]), "amax"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wide"), [*((name, ()) for name in CONFIGS), ("3b unshared", WIDE)]
)
def test_as_the_emulation(name: str, wide: tuple[str, ...]) -> None:
    config, (noise, latent) = CONFIGS[name], latents(GRID)
    plain = folded(config, torch.float32)
    table = calibrated(plain, wide)
    exact = StaticGenerator(plain, GRID).to(DEVICE)(noise, latent)
    emulated = StaticGenerator(quantise_network(plain, table), GRID).to(DEVICE)(noise, latent)
    v = noise - emulated
    changed = relative_rms(noise - exact, v)  # by fp8
    assert changed > 1e-3
    if DEVICE == "cpu":  # in fp32 the kernels are for the interpreter only
        stage = TritonGenerator(e4m3_network(plain, table, torch.float32), GRID)
        assert relative_rms(noise - restored(stage, noise, latent), v) <= SAME * changed
    stage = TritonGenerator(e4m3_network(plain, table, torch.float16), GRID)
    ours = restored(stage, noise, latent).float()
    half = StaticGenerator(quantise_network(folded(config, torch.float16), table), GRID).to(DEVICE)
    plainly = half(noise.half(), latent.half()).float()
    limit = LARGEST_RATIO * max(relative_rms(noise - plainly, v), 0.1 * changed)
    assert relative_rms(noise - ours, v) <= limit


def test_every_linear_of_a_block_is_multiplied_in_e4m3() -> None:
    network = folded(CONFIGS["3b"], torch.float32)
    stage = TritonGenerator(e4m3_network(network, calibrated(network), torch.float16), GRID)
    products = [
        product
        for layer in stage._layers
        for kind in ("qkv", "out", "mlp_in", "mlp_out")
        for product in getattr(layer, kind)
    ]
    assert len(products) == 2 * 4 + 2 * 4 + 4 + 1
    assert {type(product.linear) for product in products} == {E4m3Linear}
    assert {product.x.dtype for product in products} == {torch.float8_e4m3fn}
    scales = [product.scale for product in products if product.scale is not None]
    assert len(scales) == len(products) and all(scale.isfinite().all() for scale in scales)
    shared = stage._layers[1].mlp_in[0].scale
    assert shared is not None and len(shared.unique()) <= 2 and len(shared) == 36 + 5


def test_a_plan_in_fp8_runs_as_the_network_it_was_made_from(tmp_path: Path) -> None:
    config, (noise, latent) = CONFIGS["3b"], latents(GRID)
    plain = folded(config, torch.float32)
    network = e4m3_network(plain, calibrated(plain, WIDE), torch.float16)
    plan = TritonPlan(
        stage="generator",
        config=config,
        precision="fp8",
        sizes=tuple(noise.shape),
        state=network.state_dict(),
    )
    write_plan(plan, tmp_path / "plan")
    stage = open_stage(tmp_path / "plan", Shared.of([tmp_path / "plan"], torch.device(DEVICE)))
    assert isinstance(stage, TritonGenerator)
    wanted = restored(TritonGenerator(network, GRID), noise, latent)
    assert torch.equal(restored(stage, noise, latent), wanted)


def test_an_input_that_was_not_calibrated_is_named() -> None:
    network = folded(CONFIGS["7b"], torch.float32)
    table = calibrated(network)
    fewer = {name: x for name, x in table.amax.items() if name != "blocks.1.video.mlp_in"}
    with pytest.raises(ModelError, match=r"has no blocks\.1\.video\.mlp_in"):
        quantised_state(network, replace(table, amax=fewer))
