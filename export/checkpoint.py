"""Checkpoints as lazy mappings: names and shapes at once, each tensor when it is asked for."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from vr_trt.errors import ModelError
from vr_trt.export.checkpoint_pickle import (
    PICKLE_MAGIC,
    ZIP_MAGIC,
    read_legacy_index,
    read_zip_index,
)
from vr_trt.export.checkpoint_safetensors import looks_like_safetensors, read_safetensors_index
from vr_trt.export.config import GeneratorConfig, VaeConfig
from vr_trt.export.extent import REMEDY, Extent, read_extent
from vr_trt.export.keys import Shapes, check_keys, current_vae_key, expected_generator, expected_vae

FLOAT8 = torch.float8_e4m3fn  # for storage only: read as float16, which holds its every value
WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, FLOAT8)


class Checkpoint(Mapping[str, torch.Tensor]):
    """The tensors of one file: `shapes` are known, `self[key]` reads that tensor anew.

    `notes` says in words what was done beyond reading, such as renaming.
    """

    def __init__(
        self,
        path: Path,
        extents: Mapping[str, Extent],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.notes = notes
        self._extents = dict(extents)

    @property
    def shapes(self) -> Shapes:
        return {key: extent.shape for key, extent in self._extents.items()}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        """The types as stored; float8 tensors are handed out as float16."""
        return {key: extent.dtype for key, extent in self._extents.items()}

    def __getitem__(self, key: str) -> torch.Tensor:
        tensor = read_extent(self.path, self._extents[key])
        return tensor.to(torch.float16) if tensor.dtype == FLOAT8 else tensor

    def renamed(self, names: Mapping[str, str], note: str) -> "Checkpoint":
        """The same tensors, those in `names` under their new name."""
        extents = {names.get(key, key): extent for key, extent in self._extents.items()}
        return Checkpoint(self.path, extents, (*self.notes, note))

    def __iter__(self) -> Iterator[str]:
        return iter(self._extents)

    def __len__(self) -> int:
        return len(self._extents)


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`: .safetensors or a state dict that `torch.save` wrote.

    The content decides, not the name. Raises ModelError if the file is missing, truncated, of
    another kind, or wants anything but tensors.
    """
    try:
        return _open(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise ModelError(f"{path} cannot be read as weights ({why}); {REMEDY}.") from error


def _open(path: Path) -> Checkpoint:
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise ModelError(f"{path} is empty; {REMEDY}.")
    if start.startswith(ZIP_MAGIC):
        extents, note = read_zip_index(path)
        return Checkpoint(path, extents, (note,) if note else ())
    if looks_like_safetensors(start):
        return Checkpoint(path, read_safetensors_index(path))
    if start.startswith(PICKLE_MAGIC):
        extents, note = read_legacy_index(path)
        return Checkpoint(path, extents, (note,) if note else ())
    raise ModelError(f"{path} is neither .safetensors nor a PyTorch checkpoint; {REMEDY}.")


def load_generator_weights(path: Path, config: GeneratorConfig) -> Checkpoint:
    """The generator's weights at `path`: keys, shapes and types checked, nothing read yet.

    The rope buffers are among the keys; their values are never to be used (fp16 files round
    them). Raises ModelError.
    """
    checkpoint = open_checkpoint(path)
    check_keys(checkpoint.shapes, expected_generator(config), path)
    return _check_dtypes(checkpoint)


def load_vae_weights(path: Path, config: VaeConfig) -> Checkpoint:
    """The VAE's weights at `path`, as above; the attention's old names are made new."""
    checkpoint = open_checkpoint(path)
    names = {key: current_vae_key(key) for key in checkpoint}
    names = {old: new for old, new in names.items() if new not in checkpoint}
    if names:
        note = f"{len(names)} attention keys had their old names"
        checkpoint = checkpoint.renamed(names, note)
    check_keys(checkpoint.shapes, expected_vae(config), path)
    return _check_dtypes(checkpoint)


def _check_dtypes(checkpoint: Checkpoint) -> Checkpoint:
    wrong = {k: dtype for k, dtype in checkpoint.dtypes.items() if dtype not in WEIGHT_DTYPES}
    for key, dtype in wrong.items():
        raise ModelError(
            f"{checkpoint.path} stores tensors in a type that weights do not have, {len(wrong)} in all "
            f"({key} is {_name(dtype)}); {REMEDY}."
        )
    return checkpoint


def narrowed(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`tensor`, the weight `name`, as `dtype`; ModelError if that cannot hold one of its values."""
    cast = tensor.to(dtype)
    if torch.finfo(dtype).max < torch.finfo(tensor.dtype).max and not cast.isfinite().all():
        raise ModelError(
            f"the folded weight {name} has values that {_name(dtype)} cannot hold, or that are no "
            "numbers: export in bf16 or fp32"
        )
    return cast


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
