"""Small checkpoints in every form that is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SMALL = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "a.bias": torch.tensor([1.5, -2.0, 0.25]),
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 4),
}

Writer = Callable[[dict[str, torch.Tensor], Path], object]


def save_zip(tensors: Any, path: Path) -> None:
    torch.save(tensors, path)


def save_legacy(tensors: Any, path: Path) -> None:
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


FORMS: dict[str, Writer] = {"safetensors": save_file, "zip": save_zip, "legacy": save_legacy}


def written(form: str, folder: Path, tensors: dict[str, torch.Tensor] = SMALL) -> Path:
    path = folder / ("model.safetensors" if form == "safetensors" else "model.pth")
    FORMS[form](tensors, path)
    return path
