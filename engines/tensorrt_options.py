"""What a build with TensorRT 11 can be asked for, as the spec's flags write it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from vr_trt.errors import ModelError

if TYPE_CHECKING:
    import tensorrt as trt

_YES_NO = ("no", "yes")
_TILING = ("none", "fast", "moderate", "full")
# Name -> the values it may have, its default first; None: "auto" or a whole number.
_VALUES: dict[str, tuple[str, ...] | None] = {
    "level": ("3", "0", "1", "2", "4", "5"),  # the time spent on looking for faster kernels
    "aux_streams": None,
    "workspace_mib": None,
    "tiling": _TILING,  # across layers, to stay in the L2 cache
    "weight_streaming": _YES_NO,  # weights stay in host memory: for cards that cannot hold them
    "tf32": _YES_NO,  # 10-bit products in fp32 engines
    "timing_cache": ("yes", "no"),  # reuse what earlier builds measured
    "plugins": _YES_NO,  # our kernels, for the graph's nodes that ask for them
}
_LARGEST = 1 << 20  # of what is a whole number
_AUTO = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorRtOptions:
    """The flags of a spec, as the library takes them."""

    level: int
    aux_streams: int | None  # None: as the library chooses
    workspace_mib: int | None  # None: all the memory there is
    tiling: str
    weight_streaming: bool
    tf32: bool
    timing_cache: bool
    plugins: bool

    @classmethod
    def from_flags(cls, flags: Mapping[str, str]) -> Self:
        """What `complete` gave; other flags are left alone."""
        chosen = {name: flags[name] for name in _VALUES}
        values = {name: _read(name, value) for name, value in chosen.items()}
        return cls(**values)


def complete(options: Mapping[str, str]) -> dict[str, str]:
    """`options` with the defaults; ModelError for an unknown name or value."""
    flags = {name: values[0] if values else _AUTO for name, values in _VALUES.items()}
    for name, value in options.items():
        if name not in _VALUES:
            raise ModelError(f"tensorrt has no option {name!r}: it has {', '.join(_VALUES)}")
        _check(name, value)
        flags[name] = value
    return flags


def _check(name: str, value: str) -> None:
    values = _VALUES[name]
    if values is not None and value not in values:
        raise ModelError(f"{name} is one of {', '.join(sorted(values))}, not {value!r}")
    whole = value.isascii() and value.isdigit() and int(value) <= _LARGEST
    if values is None and value != _AUTO and not whole:
        raise ModelError(f"{name} is {_AUTO} or a whole number up to {_LARGEST}, not {value!r}")


def _read(name: str, value: str) -> Any:
    _check(name, value)
    values = _VALUES[name]
    if values is None:
        return None if value == _AUTO else int(value)
    if set(values) == set(_YES_NO):
        return value == "yes"
    return int(value) if value.isdigit() else value


def configure(config: "trt.IBuilderConfig", options: TensorRtOptions) -> None:
    """Set everything that decides the plan; what is not named here stays as the library has it.

    No hardware or version compatibility: an engine is for one chip and one library, and both cost
    speed. Precision is no setting: the network keeps the graph's types.
    """
    import tensorrt as trt

    config.builder_optimization_level = options.level
    config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # layers by name, for `debug`
    config.tiling_optimization_level = _tiling(options.tiling)
    if options.aux_streams is not None:
        config.max_aux_streams = options.aux_streams
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # the library's default is on
    if options.weight_streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    if options.timing_cache:
        config.set_flag(trt.BuilderFlag.EDITABLE_TIMING_CACHE)
    else:
        config.set_flag(trt.BuilderFlag.DISABLE_TIMING_CACHE)


def _tiling(name: str) -> "trt.TilingOptimizationLevel":
    import tensorrt as trt

    levels = {
        "none": trt.TilingOptimizationLevel.NONE,
        "fast": trt.TilingOptimizationLevel.FAST,
        "moderate": trt.TilingOptimizationLevel.MODERATE,
        "full": trt.TilingOptimizationLevel.FULL,
    }
    return levels[name]
