"""The prompts' embeddings."""

from pathlib import Path
from typing import Any

import pytest
import torch

from vr_trt.errors import ModelError
from vr_trt.export.text import NEGATIVE_TEXT, POSITIVE_TEXT, load_text


def test_shipped_prompts_load() -> None:
    assert load_text(POSITIVE_TEXT).shape == (58, 5120)
    assert load_text(NEGATIVE_TEXT).shape == (64, 5120)
    assert load_text().dtype == torch.bfloat16 and load_text().isfinite().all()


@pytest.mark.parametrize(
    "content",
    [torch.zeros(58, 4096), torch.zeros(5120), torch.zeros(0, 5120), {"a": torch.zeros(2, 5120)}],
)
def test_anything_but_one_embedding_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "text.pt")
    with pytest.raises(ModelError, match=r"text\.pt"):
        load_text(tmp_path / "text.pt")


def test_an_embedding_of_integers_or_none_at_all_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(2, 5120, dtype=torch.int64), tmp_path / "text.pt")
    with pytest.raises(ModelError, match="int64"):
        load_text(tmp_path / "text.pt")
    with pytest.raises(ModelError, match="cannot be read"):
        load_text(tmp_path / "absent.pt")
