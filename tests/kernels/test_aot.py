"""Kernels compiled for chips that are not here, and their PTX cut to what a launcher passes."""

from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

import triton
import triton.language as tl
from tests.chips import PRODUCT, PRODUCT_FP8, check_fits, chips

from vr_trt.errors import ModelError
from vr_trt.kernels.aot import (
    Compiled,
    CompiledKernel,
    assemble,
    compile_for,
    compile_kernel,
    instructions,
    parameters,
    read_resources,
    strip_scratch,
    target_of,
)
from vr_trt.kernels.rms_norm import rms_norm_kernel, rms_norm_tile

ARCH = {80: "sm_80", 86: "sm_86", 89: "sm_89", 90: "sm_90a", 100: "sm_100a", 120: "sm_120a"}
PTX = """.version 8.7
.target sm_89
.visible .entry scale(
\t.param .u64 .ptr .global .align 1 scale_param_0,
\t.param .u32 scale_param_1,
\t.param .u64 .ptr .global .align 1 scale_param_2,
\t.param .u64 .ptr .global .align 1 scale_param_3
)
{
\tld.param.b64 %rd1, [scale_param_0];
\tret;
}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def rms_norm(columns: int, chip: int, kind: str = "fp16") -> CompiledKernel:
    width = "i32" if columns % 16 else "i32:16"
    signature = {"x": f"*{kind}:16", "rows": "i32", "columns": width, "y": f"*{kind}:16"}
    constants = {"EPS": 1e-5, **rms_norm_tile(columns).constants}
    return compile_kernel(rms_norm_kernel, signature, constants, chip)


def check(kernel: CompiledKernel) -> None:
    """PTX that assembles anew, with the kernel's own four arguments and the block it was made for."""
    kinds = [part.split()[1] for part in parameters(kernel.ptx, kernel.name)]
    assert kinds == [".u64", ".u32", ".u32", ".u64"]
    assert ".version 8.7" in kernel.ptx  # drivers of CUDA 12.8 and later
    assert f".reqntid {32 * kernel.warps}" in kernel.ptx
    again = assemble(kernel.ptx, kernel.arch)
    assert again[:4] == b"\x7fELF"
    assert read_resources(again) == kernel.resources


@pytest.mark.parametrize("sm", chips())
def test_ptx_of_every_chip_assembles_without_scratch(sm: int) -> None:
    kernel = rms_norm(2560, sm, "bf16")
    assert kernel.arch == ARCH[sm]
    check(kernel)
    assert 0 < kernel.resources.registers <= 64  # four blocks of 256 threads on a multiprocessor
    assert kernel.resources.spilled == 0
    assert kernel.shared <= 1024


def test_aligned_rows_are_read_and_written_sixteen_bytes_at_a_time() -> None:
    def moves(kernel: CompiledKernel) -> set[str]:
        names = [name for name in instructions(kernel.cubin) if name.startswith(("LDG", "STG"))]
        return {name.removesuffix(".SYS") for name in names}

    assert moves(rms_norm(2560, 89)) == {"LDG.E.128", "STG.E.128"}
    odd = rms_norm(2561, 89)
    check(odd)
    assert moves(odd) == {"LDG.E.U16", "STG.E.U16"}


def test_scratch_pointers_are_the_last_two_and_go() -> None:
    stripped = strip_scratch(PTX, "scale")
    assert [part.split()[-1] for part in parameters(stripped, "scale")] == [
        "scale_param_0",
        "scale_param_1",
    ]
    assert stripped.count("\n{\n") == 1 and stripped.endswith("\tret;\n}\n")


def test_a_kernel_that_uses_its_scratch_is_refused() -> None:
    used = PTX.replace("\tret;", "\tld.param.b64 %rd2, [scale_param_3];\n\tret;")
    with pytest.raises(ModelError, match="uses its scratch pointer scale_param_3"):
        strip_scratch(used, "scale")


def test_a_longer_name_is_no_use_of_a_shorter_one() -> None:
    other = PTX.replace("\tret;", "\tld.param.b64 %rd2, [scale_param_30];\n\tret;")
    assert "scale_param_30" in strip_scratch(other, "scale")


@pytest.mark.parametrize(
    ("ptx", "name", "error"),
    [
        (PTX, "other", "no kernel other"),
        (
            PTX.replace(".u64 .ptr .global .align 1 scale_param_3", ".u32 scale_param_3"),
            "scale",
            "end",
        ),
        (".visible .entry scale()\n{ ret; }", "scale", "two scratch pointers"),
    ],
)
def test_what_is_no_triton_kernel_is_refused(ptx: str, name: str, error: str) -> None:
    with pytest.raises(ModelError, match=error):
        strip_scratch(ptx, name)


def test_bad_ptx_does_not_assemble() -> None:
    kernel = rms_norm(128, 89)
    with pytest.raises(ModelError, match="does not assemble for sm_89"):
        assemble(kernel.ptx.replace("ret;", "retrun;"), "sm_89")
    assert target_of(kernel.ptx) == "sm_89"
    with pytest.raises(ModelError, match="no .target"):
        target_of(".version 8.7")
    with pytest.raises(ModelError, match="cannot be read"):
        read_resources(b"nothing")


def test_a_kernel_with_clusters_cannot_enter() -> None:
    @triton.jit
    def store(y, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        tl.store(y + tl.arange(0, BLOCK), 1.0)

    from vr_trt.kernels import aot

    class Metadata:
        name, global_scratch_size, num_ctas = "store", 0, 2
        launch_cooperative_grid = launch_pdl = False

    with pytest.raises(ModelError, match="needs clusters"):
        aot._check_launch(Metadata)
    kernel = compile_kernel(store, {"y": "*fp32"}, {"BLOCK": 128}, 80)
    assert len(parameters(kernel.ptx, kernel.name)) == 1


@triton.jit
def product(a, b, c, K, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    m, n, k = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :], tl.arange(0, BLOCK)
    total = tl.zeros([M, N], tl.float32)
    for first in range(0, K, BLOCK):
        left = tl.load(a + m * K + first + k[None, :])
        total = tl.dot(left, tl.load(b + (first + k[:, None]) * N + n), total)
    tl.store(c + m * N + n, total)


@pytest.mark.parametrize("sm", chips())
def test_what_a_product_becomes(sm: int) -> None:
    check_product("fp16", sm, PRODUCT[sm])


@pytest.mark.parametrize("sm", chips(PRODUCT_FP8))
def test_what_a_product_of_e4m3_becomes(sm: int) -> None:
    check_product("fp8e4nv", sm, PRODUCT_FP8[sm])


def check_product(kind: str, sm: int, instruction: str) -> None:
    signature = {"a": f"*{kind}:16", "b": f"*{kind}:16", "c": "*fp32:16", "K": "i32:16"}
    sizes = {"M": 128, "N": 128, "BLOCK": 64, "num_warps": 8, "num_stages": 3}
    compiled = compile_for(product, signature, sizes, sm)
    assert compiled.count(instruction) > 0
    assert compiled.count("LDGSTS") > 0  # 16 bytes at a time, past the registers
    check_fits(compiled, sm)
    assert compiled.shared_bytes >= 3 * 64 * 128


def test_products_that_wait_for_each_other_are_seen() -> None:
    def of(*instructions: str) -> Compiled:
        return Compiled(
            arch="sm_90a", spills=0, registers=1, shared_bytes=0, instructions=instructions
        )

    product, begin = "HGMMA.64x64x16.F32", "WARPGROUP.ARRIVE"
    assert of(begin, product, begin, product).serialised
    assert not of(begin, product, product, begin, product, product).serialised
    assert not of(begin, "QGMMA.64x64x32.F32").serialised and not of("HMMA", "HMMA").serialised


def test_spills_are_seen() -> None:
    signature = {"a": "*fp16:16", "b": "*fp16:16", "c": "*fp32:16", "K": "i32:16"}
    sizes = {"M": 256, "N": 128, "BLOCK": 64, "num_warps": 2}  # 512 accumulators a thread
    assert compile_for(product, signature, sizes, 89).spills > 0
