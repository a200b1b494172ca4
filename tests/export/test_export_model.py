"""Exported stages: valid, static, named, shared, and equal to PyTorch in ONNX Runtime."""

import getpass
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
import torch
from tests.networks import normal
from tests.tiny_model import (
    TEXT,
    TINY_3B,
    TINY_7B,
    Array,
    Exported,
    Plain,
    TinyModel,
    make_tiny_model,
)

import vr_trt
from vr_trt.errors import ModelError, UsageError
from vr_trt.export.config import GeneratorConfig
from vr_trt.export.export_model import ExportPlan, Precision, export_model
from vr_trt.export.golden import relative_rms
from vr_trt.export.stages import StageShape

LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 5e-3}
PORTRAIT = StageShape(height=48, width=32, latents=6, step=2)  # time shifts: 1, 2, 2, 1
LANDSCAPE = StageShape(height=16, width=48, latents=3)
RAGGED = StageShape(height=320, width=384, latents=5)  # windows of 19 + 1 rows, 22 + 2 columns
PANORAMA = StageShape(height=16, width=6720, latents=2)  # one row of tokens
STAGES = [f"{verb}_{call}" for verb in ("encode", "decode") for call in ("start", "step", "image")]
# Each a function of its inputs' values and static shapes; nothing that loops, searches or counts.
STATIC_OPERATORS = {
    "Add", "Attention", "Concat", "ConstantOfShape", "Conv", "Div", "Expand", "Gather", "Gelu",
    "Gemm", "GroupNormalization", "MatMul", "Mul", "Pad", "RMSNormalization", "ReduceSum",
    "Reshape", "Sigmoid", "Slice", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip
ANY_SIZE_OPERATORS = STATIC_OPERATORS | {"ReduceMean", "Shape", "Squeeze"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return make_tiny_model(tmp_path_factory.mktemp("tiny_weights"))


@pytest.fixture(scope="module")
def tiny_7b(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return make_tiny_model(tmp_path_factory.mktemp("tiny_7b_weights"), TINY_7B)


Make = Callable[[ExportPlan], Exported]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Make:
    def make(plan: ExportPlan) -> Exported:
        folder = tmp_path_factory.mktemp("exported")
        assert export_model(plan, folder) == folder / "manifest.json"
        return Exported(folder)

    return make


@pytest.fixture(scope="module")
def portrait(tiny: TinyModel, exported: Make) -> Exported:
    return exported(ExportPlan(model=tiny, shape=PORTRAIT, profile="small"))


@pytest.fixture(scope="module")
def half(tiny: TinyModel, exported: Make) -> Exported:
    return exported(ExportPlan(model=tiny, shape=LANDSCAPE, precision="fp16"))


@pytest.fixture(scope="module")
def any_size(tiny: TinyModel, exported: Make) -> Exported:
    return exported(ExportPlan(model=tiny))


def check_coders(given: Exported, shape: StageShape, limit: float) -> None:
    """A clip of a start and two steps, and a picture."""
    h, w, latents = shape.h, shape.w, 2 + 2 * shape.step
    x, z = normal(1, 3, 4 * latents - 3, 8 * h, 8 * w), normal(1, 16, latents, h, w)
    plain = Plain()
    for verb, value, wanted in (("encode", x, plain.encode(x)), ("decode", z, plain.decode(z))):
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
    check_coders(half, LANDSCAPE, LIMITS["fp16"])


def test_half_precision_generators_in_onnx_runtime(half: Exported) -> None:
    check_generator(half, (3, 2, 6), LIMITS["fp16"])
    check_generator(half, (1, 2, 6), LIMITS["fp16"], stage="generator_image")


@pytest.mark.parametrize("shape", [RAGGED, PANORAMA], ids=["ragged", "panorama"])
def test_ragged_windows_of_the_3b(shape: StageShape, tiny: TinyModel, exported: Make) -> None:
    given = exported(ExportPlan(model=tiny, shape=shape, networks=["generator"]))
    check_generator(given, (shape.latents, shape.h, shape.w), LIMITS["fp32"])


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_ragged_windows_of_the_7b(precision: Precision, tiny_7b: TinyModel, exported: Make) -> None:
    plan = ExportPlan(model=tiny_7b, shape=RAGGED, networks=["generator"], precision=precision)
    size = (RAGGED.latents, RAGGED.h, RAGGED.w)
    check_generator(exported(plan), size, LIMITS[precision], TINY_7B)


@pytest.mark.parametrize("size", [(4, 6), (2, 2), (6, 10), (14, 4)])
def test_coders_of_any_size_in_onnx_runtime(size: tuple[int, int], any_size: Exported) -> None:
    h, w = size
    shape = StageShape(height=8 * h, width=8 * w, latents=1, step=1)
    check_coders(any_size, shape, LIMITS["fp32"])


@pytest.mark.parametrize("size", [(1, 2, 2), (9, 4, 6), (2, 40, 48), (5, 2, 900), (3, 8, 2)])
def test_generator_of_any_size_in_onnx_runtime(
    size: tuple[int, int, int], any_size: Exported
) -> None:
    check_generator(any_size, size, LIMITS["fp32"], any_size=True)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_generator_of_any_size_of_the_7b(
    precision: Precision, tiny_7b: TinyModel, exported: Make
) -> None:
    plan = ExportPlan(model=tiny_7b, networks=["generator"], precision=precision)
    given = exported(plan)
    for size in ((2, 6, 4), (6, 40, 48)):
        check_generator(given, size, LIMITS[precision], TINY_7B, any_size=True)


def test_weights_stored_in_half_are_cast_at_load(tiny: TinyModel, exported: Make) -> None:
    plan = ExportPlan(model=tiny, shape=LANDSCAPE, networks=["generator"], store_half=True)
    given = exported(plan)
    check_generator(given, (3, 2, 6), LIMITS["fp16"])
    model = given.model("generator")
    large = [t for t in model.graph.initializer if t.data_location == t.EXTERNAL]
    assert {t.data_type for t in large if not t.name.endswith(("order", "place"))} == {
        onnx.TensorProto.FLOAT16
    }
    assert {i.type.tensor_type.elem_type for i in model.graph.input} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize(
    "network",
    [
        "generator",
        pytest.param("encoder", marks=pytest.mark.slow),
        pytest.param("decoder", marks=pytest.mark.slow),
    ],
)
def test_bf16_graphs_are_valid(network: str, tiny: TinyModel, exported: Make) -> None:
    """Not run: ONNX Runtime's CPU has no bf16 kernels."""
    given = exported(ExportPlan(model=tiny, shape=LANDSCAPE, networks=[network], precision="bf16"))
    for path in given.folder.glob("*.onnx"):
        onnx.checker.check_model(path, full_check=True)
        model = given.model(path.stem)
        kinds = {i.type.tensor_type.elem_type for i in (*model.graph.input, *model.graph.output)}
        assert kinds == {onnx.TensorProto.BFLOAT16}
        weights = {t.data_type for t in model.graph.initializer}
        assert weights <= {onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT64}


@pytest.mark.slow
def test_stages_cut_by_resolution_in_onnx_runtime(tiny: TinyModel, exported: Make) -> None:
    shape = StageShape(height=32, width=48, latents=3, step=2, cut=True)
    given, plain = exported(ExportPlan(model=tiny, shape=shape)), Plain()
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


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("stage", [*STAGES, "generator", "generator_image"])
def test_static_graphs_are_static(stage: str, portrait: Exported) -> None:
    onnx.checker.check_model(portrait.folder / f"{stage}.onnx", full_check=True)
    model = portrait.model(stage)
    assert {o.domain: o.version for o in model.opset_import} == {"": 23}
    operators = {node.op_type for node in model.graph.node}
    assert operators - STATIC_OPERATORS == set()
    assert not model.functions and not any(
        attribute.HasField("g") for node in model.graph.node for attribute in node.attribute
    )
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        assert all(isinstance(size, int) and size > 0 for size in dims(value)), value.name


@pytest.mark.parametrize("stage", [*STAGES, "generator"])
def test_graphs_of_any_size_have_no_data_dependent_operator(stage: str, any_size: Exported) -> None:
    onnx.checker.check_model(any_size.folder / f"{stage}.onnx", full_check=True)
    model = any_size.model(stage)
    assert {node.op_type for node in model.graph.node} - ANY_SIZE_OPERATORS == set()
    sizes = dims(model.graph.input[0])
    assert [isinstance(size, str) for size in sizes[-2:]] == [True, True]
    assert isinstance(sizes[0], int) and isinstance(sizes[1], int)


def test_shapes_are_the_profile_s(portrait: Exported) -> None:
    h, w, k = PORTRAIT.h, PORTRAIT.w, PORTRAIT.step
    wanted = {
        "encode_start": ([1, 3, 5, 48, 32], [1, 16, 2, h, w]),
        "encode_step": ([1, 3, 4 * k, 48, 32], [1, 16, k, h, w]),
        "encode_image": ([1, 3, 1, 48, 32], [1, 16, 1, h, w]),
        "decode_start": ([1, 16, 2, h, w], [1, 3, 5, 48, 32]),
        "decode_step": ([1, 16, k, h, w], [1, 3, 4 * k, 48, 32]),
        "decode_image": ([1, 16, 1, h, w], [1, 3, 1, 48, 32]),
        "generator": ([1, 16, 6, h, w], [1, 16, 6, h, w]),
        "generator_image": ([1, 16, 1, h, w], [1, 16, 1, h, w]),
    }
    for stage, (given, made) in wanted.items():
        graph = portrait.model(stage).graph
        assert (dims(graph.input[0]), dims(graph.output[0])) == (given, made)


def test_inputs_and_outputs_are_named_as_agreed(portrait: Exported, any_size: Exported) -> None:
    for given in (portrait, any_size):
        for verb, came, result in (("encode", "x", "latent"), ("decode", "latent", "x")):
            start, step, image = (
                given.model(f"{verb}_{c}").graph for c in ("start", "step", "image")
            )
            assert [i.name for i in start.input] == [i.name for i in image.input] == [came]
            assert [o.name for o in image.output] == [result]
            kept = [o.name for o in start.output[1:]]
            assert kept and [o.name for o in step.output] == [result, *kept]
            assert start.output[0].name == result
            states = [name.replace("next.", "state.", 1) for name in kept]
            assert [i.name for i in step.input] == [came, *states]
            for out, into in zip(step.output[1:], step.input[1:], strict=True):
                assert dims(out) == dims(into)  # what comes out goes in again
    tables = [f"{part}.{name}" for part in ("plain", "shifted")
              for name in ("index", "mask", "place", "cos", "sin")]  # fmt: skip
    for given, more in ((portrait, []), (any_size, tables)):
        graph = given.model("generator").graph
        assert [i.name for i in graph.input] == ["noise", "latent", *more]
        assert [o.name for o in graph.output] == ["restored"]


@pytest.mark.parametrize("stage", [*STAGES, "generator", "generator_image"])
def test_nodes_are_named_by_layer(stage: str, portrait: Exported) -> None:
    graph = portrait.model(stage).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert [
        name for name in names if not name.startswith(("network/", "folded/", "windows/"))
    ] == []
    for node in graph.node:
        assert node.op_type in node.name.rpartition("/")[2]
    values = [name for node in graph.node for name in node.output]
    assert len(set(values)) == len(values)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for node in convolutions:  # a layer's weight has its layer's name
        layer = node.name.rpartition("/")[0].replace("/", ".")
        assert any(name.startswith(f"{layer}.") for name in node.input) or "conv" in layer


def test_nothing_tells_where_it_was_made(
    portrait: Exported, any_size: Exported, tiny: TinyModel
) -> None:
    secrets = [str(Path.home()), str(Path.cwd()), str(portrait.folder), str(tiny.vae_file.parent)]
    secrets += ['File "', "site-packages", ".py", "/tmp/", f"/{getpass.getuser()}/"]
    for given in (portrait, any_size):
        for path in (*given.folder.glob("*.onnx"), given.folder / "manifest.json"):
            content = path.read_bytes()
            found = [secret for secret in secrets if secret.encode() in content]
            assert not found, (path.name, found)


@pytest.mark.parametrize("stage", [*STAGES, "generator"])
def test_metadata_says_what_it_is(stage: str, portrait: Exported, tiny: TinyModel) -> None:
    model = portrait.model(stage)
    assert (model.producer_name, model.producer_version) == ("vr-trt", vr_trt.__version__)
    assert model.graph.name == stage
    hashes = {
        f"sha256:{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tiny.generator_file, tiny.vae_file)
    }
    assert {p.key: p.value for p in model.metadata_props} == {
        "model": "tiny",
        "version": vr_trt.__version__,
        "precision": "fp32",
        "profile": "small",
        "pixels": "32x48",
        "window_latents": "6",
        "step_latents": "2",
        **hashes,
    }


def test_the_manifest_is_whole(portrait: Exported) -> None:
    manifest = json.loads((portrait.folder / "manifest.json").read_text())
    files = {path.name for path in portrait.folder.iterdir()} - {"manifest.json"}
    assert set(manifest["sha256"]) == files
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((portrait.folder / name).read_bytes()).hexdigest() == digest
    assert set(manifest["stages"]) == {*STAGES, "generator", "generator_image"}
    assert set(manifest["stages"].values()) <= files
    assert (manifest["rope"], manifest["head_width"]) == ("language", TINY_3B.head_width)
    assert (manifest["text_tokens"], manifest["latent_channels"]) == (len(TEXT), 16)
    shape = {"width": 32, "height": 48, "latents": 6, "step": 2}
    assert manifest["shape"].items() >= shape.items()
    assert (manifest["precision"], manifest["profile"]) == ("fp32", "small")


def external(model: onnx.ModelProto) -> dict[str, dict[str, str]]:
    """Where each large weight lies."""
    return {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }


@pytest.mark.parametrize(("verb", "network"), [("encode", "encoder"), ("decode", "decoder")])
def test_start_and_step_share_their_weights(verb: str, network: str, portrait: Exported) -> None:
    start, step = (external(portrait.model(f"{verb}_{call}")) for call in ("start", "step"))
    # Two latents are too few for the first upsampling's later step; a step's ones are its own.
    only_later = ("network.up_blocks.0.upsamplers.0.step.weight", "ones_like")
    common = {name: at for name, at in step.items() if not name.startswith(only_later)}
    assert len(common) > 10 and {name: start.get(name) for name in common} == common
    image = external(portrait.model(f"{verb}_image"))
    size = (portrait.folder / f"{network}.bin").stat().st_size
    stored = (*start.values(), *step.values(), *image.values())
    places = {(int(p["offset"]), int(p["length"])) for p in stored}
    assert {p["location"] for p in start.values()} == {f"{network}.bin"}  # no path, no folder
    ends = sorted((offset, offset + length) for offset, length in places)
    assert all(a[1] <= b[0] for a, b in pairwise(ends))  # none overlaps
    assert ends[-1][1] == size  # and nothing else is in the file
    assert all(offset % 4096 == 0 for offset, _ in places)


def test_equal_exports_are_equal_files_and_progress_is_told(
    tiny: TinyModel, tmp_path: Path
) -> None:
    plan = ExportPlan(model=tiny, shape=LANDSCAPE, networks=["generator"])
    first, second = tmp_path / "first", tmp_path / "new" / "folder"
    said: list[str] = []
    export_model(plan, first)
    export_model(plan, second, said.append)
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert len(names) == 4
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    manifest = json.loads((first / "manifest.json").read_text())
    assert list(manifest["stages"]) == ["generator", "generator_image"]
    assert [line.split(":")[0] for line in said] == [
        stage for stage in manifest["stages"] for _ in ("tracing", "done")
    ]


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_folder_of_something_else_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UsageError) as error:
        export_model(ExportPlan(model=tiny, shape=LANDSCAPE), tmp_path)
    assert "holiday.jpg" in one_line(error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["holiday.jpg", "manifest.json"]


def test_a_folder_that_cannot_be_written_is_one_line(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "blocked" / "encoder.bin").mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "blocked"):
        with pytest.raises(UsageError) as error:
            export_model(ExportPlan(model=tiny, shape=LANDSCAPE), folder)
        assert str(folder) in one_line(error) and "--out" in one_line(error)


def test_wrong_weights_leave_an_earlier_export_alone_or_invalid(
    tiny: TinyModel, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    missing = TinyModel(
        name="tiny", generator=tiny.generator, vae=tiny.vae,
        generator_file=tmp_path / "nothing.safetensors", vae_file=tiny.vae_file,
    )  # fmt: skip
    with pytest.raises(ModelError) as error:
        export_model(ExportPlan(model=missing, shape=LANDSCAPE), folder)
    assert "nothing.safetensors" in one_line(error)
    assert (folder / "manifest.json").is_file()  # nothing was touched
    swapped = TinyModel(
        name="tiny", generator=tiny.generator, vae=tiny.vae,
        generator_file=tiny.vae_file, vae_file=tiny.generator_file,
    )  # fmt: skip
    with pytest.raises(ModelError) as error:
        export_model(ExportPlan(model=swapped, shape=LANDSCAPE), folder)
    assert "missing" in one_line(error)
    assert not (folder / "manifest.json").exists()  # half an export is none


def test_unknown_choices_are_named(tiny: TinyModel) -> None:
    with pytest.raises(UsageError, match="fp64"):
        ExportPlan(model=tiny, precision="fp64")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="upscaler"):
        ExportPlan(model=tiny, networks=["encoder", "upscaler"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 40},
        {"width": 8},
        {"height": 0},
        {"latents": 0},
        {"step": 0},
    ],
)
def test_impossible_shapes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 16|at least one latent"):
        replace(StageShape(height=32, width=32, latents=1), **wrong)  # type: ignore[arg-type]
