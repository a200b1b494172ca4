"""Planes in a card's memory as objects that other libraries take without copying.

DLPack is a C structure in a capsule; its deleter is called when the library no longer needs the
memory, from any of its threads. Source: DLPack 0.8, `dlpack.h`, and the array API standard's
`__dlpack__`. PyAV calls it with the stream left out.
"""

import ctypes
from collections.abc import Sequence
from itertools import count

_CUDA = 2  # kDLCUDA
_UNSIGNED = 1  # kDLUInt
_NAME = b"dltensor"


class _Device(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("number", ctypes.c_int32)]


class _Type(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("dimensions", ctypes.c_int32),
        ("type", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    """A tensor, whose it is, and what to call when it is no longer needed."""

    _fields_ = [("tensor", _Tensor), ("number", ctypes.c_void_p), ("deleter", _Deleter)]


_lent: dict[int, tuple[object, ...]] = {}  # by number: structures and owner, while they are needed
_numbers = count(1)


def _taken_back(managed: int) -> None:
    number = Managed.from_address(managed).number
    del _lent[number]


_give_back = _Deleter(_taken_back)


class Lent:
    """One plane, for `from_dlpack`; `owner` is held until the library is done with the memory."""

    def __init__(
        self,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],  # items
        bits: int,  # of an item: 8 or 16
        owner: object,
    ) -> None:
        self._address, self._bits, self._owner = address, bits, owner
        self._shape, self._strides = tuple(shape), tuple(strides)

    def __dlpack_device__(self) -> tuple[int, int]:
        """CUDA's first device: the one that is used (runtime/cuda.py)."""
        return _CUDA, 0

    def __dlpack__(self, *, stream: int | None = None) -> object:
        """A capsule, to be consumed at once. What fills the memory must be done by then."""
        if stream is not None:
            raise ValueError("the memory is ready when it is lent: no stream waits for it")
        lengths = ctypes.c_int64 * len(self._shape)
        shape, strides = lengths(*self._shape), lengths(*self._strides)
        number = next(_numbers)
        tensor = _Tensor(
            self._address,
            _Device(_CUDA, 0),
            len(self._shape),
            _Type(_UNSIGNED, self._bits, 1),
            shape,
            strides,
            0,
        )
        managed = Managed(tensor, number, _give_back)
        _lent[number] = managed, shape, strides, self._owner
        return _new_capsule(ctypes.addressof(managed), _NAME, None)


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
