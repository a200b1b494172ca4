"""Checkpoints: every form gives what went in, and takes no more memory than that."""

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoint_files import FORMS, SMALL, save_zip, written

from vr_trt.errors import ModelError
from vr_trt.export.checkpoint import (
    Checkpoint,
    load_generator_weights,
    load_vae_weights,
    narrowed,
    open_checkpoint,
)
from vr_trt.export.config import (
    GENERATOR_NANO,
    VAE_NANO,
    VaeConfig,
)
from vr_trt.export.extent import Extent
from vr_trt.export.keys import OLD_ATTENTION, expected_generator, expected_vae
from vr_trt.export.random_weights import random_checkpoint, random_tensors

GOLDEN = Path(__file__).parents[1] / "golden"
forms = pytest.mark.parametrize("form", FORMS)


@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_form_gives_the_tensors_that_went_in(
    form: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    tensors = {key: value.to(dtype) for key, value in SMALL.items()}
    checkpoint = open_checkpoint(written(form, tmp_path, tensors))
    assert checkpoint.shapes == {key: tuple(value.shape) for key, value in tensors.items()}
    for key, value in tensors.items():
        assert checkpoint[key].dtype == dtype and torch.equal(checkpoint[key], value)
    assert not checkpoint.notes


@forms
def test_the_content_decides_not_the_name(form: str, tmp_path: Path) -> None:
    path = written(form, tmp_path).rename(tmp_path / "weights.bin")
    assert torch.equal(open_checkpoint(path)["a.weight"], SMALL["a.weight"])


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_views_and_shared_storages_come_out_right(form: str, tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {"all": base, "turned": base.t(), "part": base[1:3, 2:5], "every": base[:, ::2]}
    path = tmp_path / "views.pth"
    FORMS[form](OrderedDict(tensors), path)
    weights = open_checkpoint(path)
    assert all(torch.equal(weights[key], value) for key, value in tensors.items())


@pytest.mark.parametrize("key", ["state_dict", "model", "ema"])
def test_one_known_wrapper_is_opened_and_stated(key: str, tmp_path: Path) -> None:
    save_zip({key: SMALL}, tmp_path / "nested.pth")
    checkpoint = open_checkpoint(tmp_path / "nested.pth")
    assert torch.equal(checkpoint["a.bias"], SMALL["a.bias"])
    assert checkpoint.notes == (f'the state dict was found under "{key}"',)


def test_float8_is_storage_and_comes_out_exact(tmp_path: Path) -> None:
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    finite = every[~every.float().isnan()]
    save_file({"w": finite}, tmp_path / "fp8.safetensors")
    checkpoint = open_checkpoint(tmp_path / "fp8.safetensors")
    assert checkpoint.dtypes == {"w": torch.float8_e4m3fn}
    assert checkpoint["w"].dtype == torch.float16
    assert torch.equal(checkpoint["w"].float(), finite.float())


def test_float8_generator_loads(tmp_path: Path) -> None:
    path = tmp_path / "fp8.safetensors"
    random_checkpoint(GENERATOR_NANO, path, torch.float8_e4m3fn)
    weights = load_generator_weights(path, GENERATOR_NANO)
    for key, value in random_tensors(GENERATOR_NANO):
        assert torch.equal(weights[key].float(), value.to(torch.float8_e4m3fn).float())


def test_random_files_are_what_the_library_reads(tmp_path: Path) -> None:
    path = random_checkpoint(VAE_NANO, tmp_path / "vae.safetensors", torch.bfloat16, seed=5)
    read, weights = load_file(path), load_vae_weights(path, VAE_NANO)
    assert weights.keys() == read.keys()
    for key, value in random_tensors(VAE_NANO, seed=5):
        assert torch.equal(read[key], value.bfloat16()) and torch.equal(weights[key], read[key])


def test_random_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    one, two, other = (
        random_checkpoint(GENERATOR_NANO, tmp_path / f"{name}.safetensors", seed=seed).read_bytes()
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert one == two != other


def test_golden_vae_loads() -> None:
    config = VaeConfig(channels=(8, 16, 24, 24), groups=8)
    path = GOLDEN / "vae_tiny_weights.safetensors"
    weights = load_vae_weights(path, config)
    assert all(torch.equal(weights[key], value) for key, value in load_file(path).items())


def test_old_attention_names_load_and_are_stated(tmp_path: Path) -> None:
    current = dict(random_tensors(VAE_NANO))
    old = {}
    for key, value in current.items():
        for before, after in OLD_ATTENTION.items():
            key = key.replace(f"attentions.0.{after}.", f"attentions.0.{before}.")
        old[key] = value
    save_file(old, tmp_path / "old.safetensors")
    checkpoint = load_vae_weights(tmp_path / "old.safetensors", VAE_NANO)
    assert checkpoint.notes == ("16 attention keys had their old names",)
    name = "decoder.mid_block.attentions.0.to_v.weight"
    assert torch.equal(checkpoint[name], current[name])


def test_wrong_keys_are_named_with_the_file(tmp_path: Path) -> None:
    path = random_checkpoint(VAE_NANO, tmp_path / "vae.safetensors")
    with pytest.raises(ModelError) as caught:
        load_generator_weights(path, GENERATOR_NANO)
    message = str(caught.value)
    missing = len(expected_generator(GENERATOR_NANO))
    assert str(path) in message and f"{missing} missing (vid_in.proj.weight" in message
    assert f"{len(expected_vae(VAE_NANO))} extra (encoder.conv_in.weight" in message


def test_wrong_type_is_refused(tmp_path: Path) -> None:
    tensors = dict(random_tensors(GENERATOR_NANO))
    tensors["txt_in.bias"] = tensors["txt_in.bias"].double()
    save_file(tensors, tmp_path / "double.safetensors")
    with pytest.raises(ModelError, match="txt_in.bias is float64"):
        load_generator_weights(tmp_path / "double.safetensors", GENERATOR_NANO)


def test_values_too_large_for_the_type_are_refused() -> None:
    large = torch.tensor([1.0, 1e6])
    with pytest.raises(ModelError, match="weight w has values that float16 cannot hold"):
        narrowed("w", large, torch.float16)
    assert narrowed("w", large, torch.bfloat16)[1].isfinite()
    assert torch.equal(narrowed("w", large[:1], torch.float16), torch.ones(1).half())


def test_notes_survive_renaming() -> None:
    checkpoint = Checkpoint(
        Path("x"), {"old": Extent(offset=0, dtype=torch.float32, shape=(1,))}, ("first",)
    )
    assert checkpoint.renamed({"old": "new"}, "second").notes == ("first", "second")


# Memory

MEASURE = """
import sys
from pathlib import Path
import torch
from vr_trt.export.checkpoint import open_checkpoint

def peak():  # not getrusage, whose peak a process inherits from its parent
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

def read(paths):
    for path in paths:
        checkpoint = open_checkpoint(Path(path))
        for key in checkpoint:
            checkpoint[key]

read(sys.argv[1:4])  # small ones: what readers import is not counted
before = peak()
read(sys.argv[4:])
print(peak() - before)
"""


def test_reading_takes_the_memory_of_one_tensor(tmp_path: Path) -> None:
    """Whatever the file's form: the 7B in fp32 has 33 GB, and folds on a machine with 24."""
    names = ("model.safetensors", "zip.pth", "legacy.pth")
    small, paths = ([tmp_path / f"{size}-{name}" for name in names] for size in ("small", "large"))
    for write, little, path in zip(FORMS.values(), small, paths, strict=True):
        write({"w": torch.ones(1)}, little)
        write({f"w{i}": torch.full((1000, 1000), float(i)) for i in range(20)}, path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MEASURE, *map(str, [*small, *paths])]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(printed.stdout) < 0.3 * paths[0].stat().st_size
