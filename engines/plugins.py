"""Our Triton kernels inside TensorRT 11, as ahead-of-time plugins: an engine runs without Python.

A node of the graph becomes one with the operator `rms_norm` and the attribute `plugin_namespace` =
"vr_trt". TensorRT launches what `aot_impl` returns with the inputs' pointers first, then the extra
integers, then the outputs' pointers; nothing checks that the kernel agrees, so we do.

TensorRT fuses a norm with its neighbours by itself, so this one pays only where measuring says so;
it is the first, and small enough to judge the road by. Never executed by us; see `build_tensorrt`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vr_trt.engines.local_gpu import present_gpu
from vr_trt.errors import ModelError
from vr_trt.kernels.aot import CompiledKernel, compile_kernel, parameters

if TYPE_CHECKING:
    import tensorrt as trt
    import tensorrt.plugin as trtp

NAMESPACE = "vr_trt"
RMS_NORM = "rms_norm"
_TYPES = "FP16|BF16|FP32"  # input and output alike
_LARGEST_SHARED = 48 << 10  # bytes; more needs an opt-in that TensorRT is not known to make
_WARP = 32  # threads
_ALIGNED = 16  # elements, and bytes: what Triton takes as a hint


def register_plugins(sm: int | None = None) -> None:
    """Make our operators known to TensorRT, once; kernels are compiled for `sm`, else this GPU.

    ModelError where there is neither, or no Triton.
    """
    import tensorrt.plugin as trtp

    if hasattr(trtp.op, NAMESPACE):
        return
    gpu = present_gpu()
    chip = sm or (gpu.sm if gpu else 0)
    if not chip:
        raise ModelError("plugins are compiled for a GPU and there is none here: set plugins=no")
    _register_rms_norm(chip)


def _register_rms_norm(sm: int) -> None:
    """x [..., C] -> x / sqrt(mean over C of x² + eps); the library reads these annotations."""
    import tensorrt.plugin as trtp

    name = f"{NAMESPACE}::{RMS_NORM}"

    @trtp.register(name)
    def describe(x: trtp.TensorDesc, eps: float) -> trtp.TensorDesc:
        return x.like()

    @trtp.autotune(name)
    def combinations(
        x: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc]
    ) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination(f"{_TYPES}, {_TYPES}", "LINEAR")]

    @trtp.aot_impl(name)
    def implementation(
        x: trtp.TensorDesc, eps: float, outputs: tuple[trtp.TensorDesc], tactic: int
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        return _implement_rms_norm(x, eps, sm)


def _implement_rms_norm(
    x: "trtp.TensorDesc", eps: float, sm: int
) -> "tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]":
    import tensorrt.plugin as trtp

    from vr_trt.kernels.rms_norm import rms_norm_kernel, rms_norm_tile

    sizes = tuple(x.shape)
    if len(sizes) < 2 or min(sizes) < 1:
        # Each new size would leak a loaded module (NVIDIA/TensorRT issue 4849).
        raise ModelError(f"{RMS_NORM} is built for fixed sizes [..., C], not {list(sizes)}")
    rows, columns = x.shape_expr[0], x.shape_expr[len(sizes) - 1]
    for i in range(1, len(sizes) - 1):
        rows = rows * x.shape_expr[i]
    tile = rms_norm_tile(sizes[-1])
    tensor = f"*{_triton_type(x.dtype)}:16"
    # Tensors start at multiples of 256 bytes; wide loads need rows that do alike.
    width = "i32:16" if sizes[-1] % _ALIGNED == 0 else "i32"
    signature = {"x": tensor, "rows": "i32", "columns": width, "y": tensor}
    kernel = compile_kernel(rms_norm_kernel, signature, {"EPS": eps, **tile.constants}, sm)
    check_launch(kernel, inputs=1, extras=2, outputs=1)
    launch = trtp.KernelLaunchParams()
    launch.grid_x = trtp.cdiv(rows, tile.rows)
    launch.block_x = kernel.warps * _WARP
    launch.shared_mem = kernel.shared
    extras = trtp.SymIntExprs(2)
    extras[0], extras[1] = trtp.SymInt32(rows), trtp.SymInt32(columns)
    return kernel.name, kernel.ptx, launch, extras


def _triton_type(dtype: "trt.DataType") -> str:
    import tensorrt as trt

    names = {trt.DataType.HALF: "fp16", trt.DataType.BF16: "bf16", trt.DataType.FLOAT: "fp32"}
    if dtype not in names:
        raise ModelError(f"plugins take fp16, bf16 or fp32, not {dtype}")
    return names[dtype]


def check_launch(kernel: CompiledKernel, *, inputs: int, extras: int, outputs: int) -> None:
    """ModelError unless TensorRT's launch fits the kernel: pointers, 32-bit integers, pointers."""
    wanted = [64] * inputs + [32] * extras + [64] * outputs
    found = [_bits(part) for part in parameters(kernel.ptx, kernel.name)]
    if found != wanted:
        raise ModelError(
            f"kernel {kernel.name} takes {_words(found)}, TensorRT passes {_words(wanted)}: its "
            "arguments must be inputs, 32-bit integers, outputs"
        )
    if kernel.shared > _LARGEST_SHARED:
        raise ModelError(
            f"kernel {kernel.name} wants {kernel.shared} bytes of shared memory, a plugin has "
            f"{_LARGEST_SHARED}: use a smaller tile"
        )


def _bits(parameter: str) -> int:
    """Of `.param .u64 .ptr .global .align 1 name`; integers and floats differ by their letter."""
    kinds = [word for word in parameter.split() if word[1:2] in "bus" and word[2:].isdigit()]
    return int(kinds[0][2:]) if kinds else 0


def _words(bits: Sequence[int]) -> str:
    return ", ".join({64: "pointer", 32: "integer"}.get(size, "other") for size in bits)
