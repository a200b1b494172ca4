"""The prompts' embeddings, which the models were trained with and never compute at run time."""

from pathlib import Path

import torch

from vr_trt.errors import ModelError
from vr_trt.export.checkpoint_pickle import read_single
from vr_trt.export.weights_table import SHIPPED

# Of ByteDance-Seed/SeedVR (Apache-2.0), shipped because the exported networks hold them.
POSITIVE_TEXT = SHIPPED / "pos_emb.pt"  # [58, 5120] bfloat16
NEGATIVE_TEXT = SHIPPED / "neg_emb.pt"  # [64, 5120] bfloat16
TEXT_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def load_text(path: Path = POSITIVE_TEXT, width: int = 5120) -> torch.Tensor:  # [L, width]
    """The embedding at `path`, of L text tokens, as stored.

    Raises ModelError if the file is missing, damaged, or holds anything but one such tensor.
    """
    try:
        text = read_single(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise ModelError(f"The embedding {path} cannot be read ({why}).") from error
    if text.dim() != 2 or text.shape[0] == 0 or text.shape[1] != width:
        shape = list(text.shape)
        raise ModelError(f"{path} is of shape {shape}; a text embedding is [tokens, {width}].")
    if text.dtype not in TEXT_DTYPES:
        raise ModelError(f"{path} is {text.dtype}; a text embedding is bfloat16, or float16 or 32.")
    return text
