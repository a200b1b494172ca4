"""Triton's interpreter put right where it rounds to E4M3 otherwise than a GPU does.

It loses the carry where a code rounds up to the next power of two, and rounds ties away from zero.
Import `round_codes` in a process of `tests.kernel_runs` and call it before kernels run.
"""

from typing import Any

import numpy as np
import torch


def round_codes() -> None:
    """From now on fp32 becomes E4M3 in the interpreter as PyTorch makes it: to nearest, ties to even."""
    import triton.language as tl
    from triton.runtime import interpreter

    plain = interpreter._convert_float

    def convert(source: Any, of: Any, to: Any, rounding: Any) -> Any:
        if (of, to) != (tl.float32, tl.float8e4nv):
            return plain(source, of, to, rounding)
        values = torch.from_numpy(np.array(source, dtype=np.float32))
        return values.to(torch.float8_e4m3fn).view(torch.uint8).numpy().reshape(source.shape)

    interpreter._convert_float = convert
