"""Triton's interpreter put right where it computes in fewer bits otherwise than a GPU does.

numpy has neither bf16 nor E4M3, so the interpreter (of Triton 3.7.1) keeps them as whole numbers. It
converts them bit by bit: what becomes bf16 is cut off instead of rounded, what becomes E4M3 loses the
carry into the next power of two, ties go away from zero, subnormal bf16 becomes another number. And
it computes with the whole numbers: products, sums, maxima and comparisons of bf16 are those of its
bits. `ml_dtypes` gives numpy both types, with conversions to the nearest even; then all is right.
"""

from typing import Any

import ml_dtypes
import numpy as np


def narrow_floats() -> None:
    """From now on bf16 and E4M3 are numbers in the interpreter, rounded as PyTorch rounds them."""
    import triton.language as tl
    from triton.runtime import interpreter

    types = {tl.bfloat16: ml_dtypes.bfloat16, tl.float8e4nv: ml_dtypes.float8_e4m3fn}
    plain = interpreter._get_np_dtype

    def numpy_type(kind: Any) -> np.dtype[Any]:
        element = kind.element_ty if isinstance(kind, tl.block_type) else kind
        pointer = isinstance(element, tl.pointer_type)
        return np.dtype(types[element]) if not pointer and element in types else plain(kind)

    def convert(source: Any, of: Any, to: Any, rounding: Any) -> Any:
        if rounding not in (None, interpreter._ir.ROUNDING_MODE.RTNE):
            raise NotImplementedError(f"{of} becomes {to} here only to the nearest even")
        return source.astype(numpy_type(to))

    interpreter._get_np_dtype = numpy_type
    interpreter._convert_float = convert
