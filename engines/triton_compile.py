"""The kernels that a stage launches, compiled ahead of time for a chip that is not here.

A coder's stage that was laid out as shapes says what it would launch. Each launch becomes a kernel of its own
by its compile-time arguments; those that several launches have in common are compiled once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vr_trt.errors import ModelError
from vr_trt.export.config import GeneratorConfig
from vr_trt.kernels.aot import SHARED_LIMIT, Compiled, compile_for
from vr_trt.kernels.conv3d import conv3d, conv3d_kernel, conv_constants
from vr_trt.kernels.conv_few import (
    FewConv,
    columns_constants,
    sum_constants,
    tap_columns,
    tap_columns_kernel,
    tap_sum,
    tap_sum_kernel,
)
from vr_trt.kernels.conv_layer import PLAIN, Extras, PackedConv
from vr_trt.kernels.conv_sizes import sizes_for
from vr_trt.kernels.frame_attention import (
    attention_constants,
    frame_attention,
    frame_attention_kernel,
)
from vr_trt.kernels.group_norm import (
    Moments,
    Norm,
    activate,
    activate_constants,
    activate_kernel,
    scale_shift,
    scale_shift_constants,
    scale_shift_kernel,
)
from vr_trt.kernels.tuning import tuned
from vr_trt.kernels.window_attention import compile_attention

_COPY_ENGINE = 90  # the first chip whose tiles are fetched by descriptor
_KINDS = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float8_e4m3fn: "fp8e4nv",
}


@dataclass(frozen=True, slots=True)
class _Request:
    """What `compile_for` is asked."""

    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]

    @property
    def key(self) -> tuple[object, ...]:
        signature, constants = (tuple(x.items()) for x in (self.signature, self.constants))
        return self.kernel.__name__, signature, constants

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {value}" for name, value in self.constants.items())
        return f"{self.kernel.__name__} ({sizes})"

    def compiled(self, chip: int) -> Compiled:
        """It, for `chip`."""
        return compile_for(self.kernel, self.signature, self.constants, chip)


def check_kernels(launches: Iterable[partial[object]], chip: int) -> dict[str, Any]:
    """Compile what `launches` need for `chip`, and say in plain values what became of it.

    `spills` lists kernels whose registers live in memory in part, if there are any. ModelError for a
    kernel that wants more shared memory than the chip has.
    """
    requests = {request.key: request for request in _requests(launches, chip)}
    return _checked([(str(request), request.compiled(chip)) for request in requests.values()], chip)


def distinct_launches(launches: Iterable[partial[object]], chip: int) -> dict[object, int]:
    """The kernels that `launches` need on `chip`, each by what it is and the first's number."""
    found: dict[object, int] = {}
    for number, launch in enumerate(launches):
        for request in _requests([launch], chip):
            found.setdefault(request.key, number)
    return found


def check_attention(config: GeneratorConfig, precision: str, chip: int) -> dict[str, Any]:
    """The same of the generator's attention."""
    kind, codes = ("fp16", True) if precision == "fp8" else (precision, False)
    compiled = compile_attention(kind, config.heads, config.head_width, chip, codes=codes)
    name = f"window_attention_kernel (heads {config.head_width} wide, {kind})"
    return _checked([(name, compiled)], chip)


def spill_note(facts: Mapping[str, Any]) -> str:
    """A line for whoever builds, from what was found for a chip; "" where nothing spills."""
    most: dict[str, int] = {}
    for spill in facts.get("spills", ()):
        name = spill["kernel"].partition(" ")[0]
        most[name] = max(most.get(name, 0), spill["bytes"])
    if not most:
        return ""
    listed = ", ".join(f"{name} ({count} bytes a thread)" for name, count in most.items())
    return f"registers spill in {listed}: it may be slower on {facts['arch']}"


def _checked(kernels: Sequence[tuple[str, Compiled]], chip: int) -> dict[str, Any]:
    """What `kernels`, by what they are, became; ModelError for one that cannot be launched."""
    limit = SHARED_LIMIT.get(chip, SHARED_LIMIT[120])
    for name, kernel in kernels:
        if kernel.shared_bytes > limit:
            raise ModelError(
                f"{name} wants {kernel.shared_bytes} bytes of shared memory, and sm_{chip} has "
                f"{limit}: choose another --backend"
            )
    compiled = [kernel for _, kernel in kernels]
    # A few bytes are a matter of speed, and another Triton may spill where ours does not.
    spills = [{"kernel": name, "bytes": k.spills} for name, k in kernels if k.spills]
    return {
        "arch": compiled[0].arch,
        "kernels": len(compiled),
        "registers": max(kernel.registers for kernel in compiled),
        "shared_bytes": max(kernel.shared_bytes for kernel in compiled),
        **({"spills": spills} if spills else {}),
    }


def _requests(launches: Iterable[partial[object]], chip: int) -> Iterable[_Request]:
    makers: dict[object, Callable[..., _Request]] = {
        conv3d: _conv, activate: _activate, scale_shift: _scale_shift,
        frame_attention: _attention, tap_columns: _columns, tap_sum: _sum,
    }  # fmt: skip
    for launch in launches:
        if launch.func in makers:  # the others are copies of PyTorch's own
            yield makers[launch.func](chip, *launch.args, **launch.keywords)


def _conv(chip: int, x: Tensor, conv: PackedConv, out: Tensor, extras: Extras = PLAIN) -> _Request:
    sizes, form = sizes_for(chip, conv, extras, len(x)), conv.form
    descriptors = chip >= _COPY_ENGINE and form.stride == 1
    kind, block_k = _KINDS[x.dtype], sizes["BLOCK_K"]
    pixels, weight = (
        f"tensordesc<{kind}[{sizes[block]},{block_k}]>" if descriptors else f"*{kind}:16"
        for block in ("BLOCK_M", "BLOCK_N")
    )
    height, width = x.shape[1] - 2, x.shape[2] - 2
    rows, columns = form.grid(height, width)
    tables = ("bias", "edge", "dequantise", "scale_shift", "past_scale_shift")
    whole = {
        "frames": form.frames(len(x), extras.lead_of(conv)), "rows": rows, "columns": columns,
        "height": height, "width": width, **_strides("y", out),
    }  # fmt: skip
    left = extras.moments or Moments(values=conv.bias, counts=conv.bias)  # not left: not used
    signature = {
        "x": pixels, "past": pixels, "weight": weight, **dict.fromkeys(tables, "*fp32:16"),
        "residual": _pointer(out), "y": _pointer(out),
        "moments": _pointer(left.values), "counts": _pointer(left.counts),
    }  # fmt: skip
    constants = {**conv_constants(conv, extras), "DESCRIPTORS": descriptors, **sizes}
    return _request(conv3d_kernel, signature, whole, constants)


def _activate(chip: int, x: Tensor, table: Tensor, out: Tensor, *, step: float) -> _Request:
    signature = {"x": _pointer(x), "scale_shift": "*fp32:16", "y": _pointer(out)}
    signature["per_step"] = "fp32"
    _, height, width, _ = x.shape
    whole = {"pixels": height * width, "width": width, **_strides("x", x), **_strides("y", out)}
    return _request(activate_kernel, signature, whole, activate_constants(out))


def _scale_shift(chip: int, moments: Moments, norm: Norm, table: Tensor) -> _Request:
    signature = dict.fromkeys(("values", "counts", "weight", "bias", "out"), "*fp32:16")
    _, tiles, _, channels = moments.values.shape
    constants = scale_shift_constants(channels, norm)
    return _request(scale_shift_kernel, signature, {"tiles": tiles}, constants)


def _attention(chip: int, qkv: Tensor, out: Tensor) -> _Request:
    _, height, width, head = out.shape
    sizes = tuned("frame_attention", chip, bits=8 * qkv.element_size())
    signature = {"qkv": _pointer(qkv), "out": _pointer(out), "scale": "fp32"}
    whole = {"positions": height * width, "width": width, **_strides("out", out)}
    return _request(frame_attention_kernel, signature, whole, attention_constants(head, sizes))


def _columns(chip: int, x: Tensor, few: FewConv, columns: Tensor, past: Tensor | None) -> _Request:
    frames, _, step = columns.shape
    signature = dict.fromkeys(("x", "past", "weight"), _pointer(x)) | {"columns": _pointer(columns)}
    whole = {"frames": frames, "plane": x.shape[1] * x.shape[2], "step": step}
    constants = columns_constants(few, past is not None, chip)
    return _request(tap_columns_kernel, signature, whole, constants)


def _sum(chip: int, columns: Tensor, few: FewConv, out: Tensor) -> _Request:
    _, height, width, _ = out.shape
    signature = {"columns": _pointer(columns), "bias": "*fp32:16", "y": _pointer(out)}
    whole = {"height": height, "width": width, "step": columns.shape[2], **_strides("y", out)}
    return _request(tap_sum_kernel, signature, whole, sum_constants(few))


def _request(
    kernel: Any, signature: dict[str, str], whole: Mapping[str, int], constants: dict[str, Any]
) -> _Request:
    """With the launch's whole numbers as Triton's launcher takes them: 1 is a constant."""
    constants = constants | {name: 1 for name, value in whole.items() if value == 1}
    kinds = {name: _whole(value) for name, value in whole.items() if value != 1}
    return _Request(kernel, signature | kinds, constants)


def _whole(value: int) -> str:
    return ("i32" if value < 2**31 else "i64") + ":16" * (value % 16 == 0)


def _pointer(x: Tensor) -> str:
    """A buffer begins at a multiple of 16 bytes; a view of it may not."""
    aligned = x.storage_offset() * x.element_size() % 16 == 0
    return f"*{_KINDS[x.dtype]}" + ":16" * aligned


def _strides(name: str, x: Tensor) -> dict[str, int]:
    return dict(zip((f"{name}_frame", f"{name}_row", f"{name}_column"), x.stride(), strict=False))
