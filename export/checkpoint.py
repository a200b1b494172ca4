"""Checkpoints as lazy mappings: names and shapes at once, each tensor when it is asked for."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from vr_trt.errors import ModelError
from vr_trt.export.checkpoint_pickle import (
    PICKLE_MAGIC,
    ZIP_MAGIC,
    read_legacy,
    read_zip_index,
)
from vr_trt.export.checkpoint_safetensors import looks_like_safetensors, read_safetensors_index
from vr_trt.export.config import GeneratorConfig, VaeConfig
from vr_trt.export.extent import REMEDY, Extent, read_extent
from vr_trt.export.keys import Shapes, check_keys, current_vae_key, expected_generator, expected_vae

Weights = dict[str, torch.Tensor]
FLOAT8 = torch.float8_e4m3fn  # for storage only: read as float16, which holds its every value
WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, FLOAT8)


class Checkpoint(Mapping[str, torch.Tensor]):
    """The tensors of one file: `shapes` are known, `self[key]` reads that tensor anew.

    `notes` says in words what was done beyond reading, such as renaming.
    """

    def __init__(
        self,
        path: Path,
        entries: Mapping[str, Extent | torch.Tensor],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.notes = notes
        self._entries = dict(entries)

    @property
    def shapes(self) -> Shapes:
        return {key: tuple(entry.shape) for key, entry in self._entries.items()}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        """The types as stored; float8 tensors are handed out as float16."""
        return {key: entry.dtype for key, entry in self._entries.items()}

    def __getitem__(self, key: str) -> torch.Tensor:
        entry = self._entries[key]
        tensor = read_extent(self.path, entry) if isinstance(entry, Extent) else entry
        return tensor.to(torch.float16) if tensor.dtype == FLOAT8 else tensor

    def take(self, key: str) -> torch.Tensor:
        """`self[key]`, forgotten here if it was held in memory: the caller is its only owner."""
        tensor = self[key]
        if isinstance(self._entries[key], torch.Tensor):
            del self._entries[key]
        return tensor

    def renamed(self, names: Mapping[str, str], note: str) -> "Checkpoint":
        """The same tensors, those in `names` under their new name."""
        entries = {names.get(key, key): entry for key, entry in self._entries.items()}
        return Checkpoint(self.path, entries, (*self.notes, note))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


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
        tensors, note = read_legacy(path)
        return Checkpoint(path, tensors, (note,) if note else ())
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


def materialise(checkpoint: Checkpoint, dtype: torch.dtype) -> Weights:
    """Every tensor in memory as `dtype`, one at a time: the peak is the result and one tensor.

    A checkpoint that is held in memory (the older pickle form) is emptied on the way. Raises
    ModelError if a value does not fit into `dtype`.
    """
    weights: Weights = {}
    for key in list(checkpoint):
        tensor = checkpoint.take(key)
        weights[key] = tensor.to(dtype)
        narrower = torch.finfo(dtype).max < torch.finfo(tensor.dtype).max
        if narrower and weights[key].isinf().any() and not tensor.isinf().any():
            raise ModelError(
                f"{checkpoint.path} has values in {key} that {_name(dtype)} cannot hold; "
                "use bfloat16 or float32."
            )
    return weights


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
