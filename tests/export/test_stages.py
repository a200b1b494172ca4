"""Exported stages in ONNX Runtime give the numbers of the unfolded networks in PyTorch."""

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from tests.exported_graphs import (
    LANDSCAPE,
    PANORAMA,
    PORTRAIT,
    RAGGED,
    Make,
    check_static,
)
from tests.networks import normal
from tests.tiny_model import (
    TINY_3B,
    TINY_7B,
    Array,
    Exported,
    Plain,
    TinyModel,
)

from vr_trt.export.config import GeneratorConfig
from vr_trt.export.export_model import ExportPlan, Precision
from vr_trt.export.golden import relative_rms
from vr_trt.export.onnx_weights import SharedWeights
from vr_trt.export.stages import StageShape

LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 5e-3}


def check_coders(
    given: Exported, shape: StageShape, limit: float, verbs: tuple[str, ...] = ("encode", "decode")
) -> None:
    """A clip of a start and two steps, and a picture."""
    h, w, latents = shape.h, shape.w, 2 + 2 * shape.step
    x, z = normal(1, 3, 4 * latents - 3, 8 * h, 8 * w), normal(1, 16, latents, h, w)
    plain = Plain()
    for verb in verbs:
        value = {"encode": x, "decode": z}[verb]
        wanted = getattr(plain, verb)(value)
        ours = given.stream(verb, value, shape.step)
        assert ours.shape == wanted.shape
        assert relative_rms(ours, wanted) <= limit
        assert relative_rms(ours[:, :, -1], wanted[:, :, -1]) <= 2 * limit  # the last step's end
        one, image = value[:, :, :1], getattr(plain, verb)(value[:, :, :1])
        assert relative_rms(given.image(verb, one), image) <= limit


def check_generator(
    given: Exported,
    size: tuple[int, int, int],
    limit: float,
    config: GeneratorConfig = TINY_3B,
    *,
    any_size: bool = False,
    stage: str = "generator",
) -> None:
    """On velocities: the noise would hide an error."""
    noise, latent = normal(1, 16, *size), normal(1, 16, *size, seed=1)
    restored = given.generate(noise, latent, tables=config if any_size else None, stage=stage)
    wanted = Plain(config).velocity(noise, latent)
    assert relative_rms(noise - restored, wanted) <= limit


def test_static_coders_in_onnx_runtime(portrait: Exported) -> None:
    check_coders(portrait, PORTRAIT, LIMITS["fp32"])


def test_static_generators_in_onnx_runtime(portrait: Exported) -> None:
    check_generator(portrait, (6, 6, 4), LIMITS["fp32"])
    check_generator(portrait, (1, 6, 4), LIMITS["fp32"], stage="generator_image")


def test_half_precision_coders_in_onnx_runtime(half: Exported) -> None:
    check_coders(half, LANDSCAPE, LIMITS["fp16"], ("decode",))


def test_half_precision_generators_in_onnx_runtime(half: Exported) -> None:
    check_generator(half, (3, 2, 6), LIMITS["fp16"])
    check_generator(half, (1, 2, 6), LIMITS["fp16"], stage="generator_image")


@pytest.mark.parametrize("shape", [RAGGED, PANORAMA], ids=["ragged", "panorama"])
def test_ragged_windows_of_the_3b(
    shape: StageShape, tiny: TinyModel, exported_generator: Make
) -> None:
    given = exported_generator(ExportPlan(model=tiny, shape=shape))
    check_generator(given, (shape.latents, shape.h, shape.w), LIMITS["fp32"])
    check_static(given, "generator")


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_ragged_windows_of_the_7b(
    precision: Precision, tiny_7b: TinyModel, exported_generator: Make
) -> None:
    given = exported_generator(ExportPlan(model=tiny_7b, shape=RAGGED, precision=precision))
    check_generator(given, (RAGGED.latents, RAGGED.h, RAGGED.w), LIMITS[precision], TINY_7B)


@pytest.mark.parametrize("size", [(4, 6), (2, 2), (6, 10), (14, 4)])
def test_an_encoder_of_any_size_in_onnx_runtime(size: tuple[int, int], any_size: Exported) -> None:
    h, w = size
    shape = StageShape(height=8 * h, width=8 * w, latents=1, step=1)
    check_coders(any_size, shape, LIMITS["fp32"], ("encode",))


@pytest.mark.slow
def test_a_decoder_of_any_size_in_onnx_runtime(tiny: TinyModel, exported: Make) -> None:
    given = exported(ExportPlan(model=tiny, networks=["decoder"]))
    for h, w in ((4, 6), (2, 2), (6, 10), (14, 4)):
        shape = StageShape(height=8 * h, width=8 * w, latents=1, step=1)
        check_coders(given, shape, LIMITS["fp32"], ("decode",))


@pytest.mark.parametrize("size", [(1, 2, 2), (9, 4, 6), (2, 40, 48), (5, 2, 900), (3, 8, 2)])
def test_generator_of_any_size_in_onnx_runtime(
    size: tuple[int, int, int], any_size: Exported
) -> None:
    check_generator(any_size, size, LIMITS["fp32"], any_size=True)


@pytest.mark.parametrize(("precision", "size"), [("fp32", (6, 40, 48)), ("fp16", (2, 6, 4))])
def test_generator_of_any_size_of_the_7b(
    precision: Precision,
    size: tuple[int, int, int],
    tiny_7b: TinyModel,
    exported_generator: Make,
) -> None:
    given = exported_generator(ExportPlan(model=tiny_7b, precision=precision))
    check_generator(given, size, LIMITS[precision], TINY_7B, any_size=True)


def test_weights_stored_in_half_are_cast_at_load(portrait: Exported, tmp_path: Path) -> None:
    whole = ir.load(portrait.folder / "generator.onnx")
    with SharedWeights(tmp_path / "generator.bin", half=True) as weights:
        weights.save(whole, tmp_path / "generator.onnx")
    given = Exported(tmp_path)
    check_generator(given, (6, 6, 4), LIMITS["fp16"])
    model = given.model("generator")
    large = [t for t in model.graph.initializer if t.data_location == t.EXTERNAL]
    large = [t for t in large if not t.name.endswith(("order", "place"))]
    ends = {t.data_type for t in large if "patch_" in t.name}
    assert ends == {onnx.TensorProto.FLOAT}  # in full: rounding them shifts every latent
    others = {t.data_type for t in large if "patch_" not in t.name}
    assert others == {onnx.TensorProto.FLOAT16}
    assert {i.type.tensor_type.elem_type for i in model.graph.input} == {onnx.TensorProto.FLOAT}


def check_bf16(given: Exported) -> None:
    """Not run: ONNX Runtime's CPU has no bf16 kernels."""
    for path in given.folder.glob("*.onnx"):
        onnx.checker.check_model(path, full_check=True)
        model = given.model(path.stem)
        kinds = {i.type.tensor_type.elem_type for i in (*model.graph.input, *model.graph.output)}
        assert kinds == {onnx.TensorProto.BFLOAT16}
        # Norms' epsilons are wide.
        weights = {t.data_type for t in model.graph.initializer if t.dims}
        assert weights <= {onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT64}


def test_a_bf16_generator_is_valid(tiny: TinyModel, exported_generator: Make) -> None:
    plan = ExportPlan(model=tiny, shape=LANDSCAPE, precision="bf16")
    check_bf16(exported_generator(plan))


@pytest.mark.slow
def test_bf16_coders_are_valid(tiny: TinyModel, exported: Make) -> None:
    networks = ["encoder", "decoder"]
    plan = ExportPlan(model=tiny, shape=LANDSCAPE, networks=networks, precision="bf16")
    check_bf16(exported(plan))


@pytest.mark.slow
def test_stages_cut_by_resolution_in_onnx_runtime(tiny: TinyModel, exported: Make) -> None:
    shape = StageShape(height=32, width=48, latents=3, step=2)
    given, plain = exported(ExportPlan(model=tiny, shape=shape, cut=True)), Plain()
    x, z = normal(1, 3, 13, 32, 48), normal(1, 16, 4, 4, 6)

    def halves(stage: str, parts: list[torch.Tensor], came: str, result: str) -> torch.Tensor:
        out: list[torch.Tensor] = []
        states: dict[str, Array] = {}
        for i, part in enumerate(parts):
            name = f"{stage}_{'step' if i else 'start'}"
            outputs = given.run(name, {came: part.numpy(), **states})
            out.append(torch.from_numpy(outputs.pop(result)))
            states = {f"state.{k.removeprefix('next.')}": v for k, v in outputs.items()}
        return torch.cat(out, 2)

    features = halves("encode_fine", list(x.split(1, 2)), "x", "features")
    latent = halves("encode_coarse", list(features.split([5, 8], 2)), "features", "latent")
    assert relative_rms(latent, plain.encode(x)) <= LIMITS["fp32"]
    features = halves("decode_coarse", list(z.split([2, 2], 2)), "latent", "features")
    frames = halves("decode_fine", list(features.split(1, 2)), "features", "x")
    assert relative_rms(frames, plain.decode(z)) <= LIMITS["fp32"]
