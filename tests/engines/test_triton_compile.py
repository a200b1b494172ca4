"""What the published stages launch compiles for every chip; what is said of kernels that do not."""

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install 'vr-trt[dev]'")

from tests.published_kernels import Stages

from vr_trt.engines import triton_compile
from vr_trt.engines.triton_compile import check_attention, check_kernels, spill_note
from vr_trt.errors import ModelError
from vr_trt.export.models import PUBLISHED
from vr_trt.kernels.aot import SHARED_LIMIT, Compiled
from vr_trt.kernels.conv3d import conv3d
from vr_trt.kernels.fp8 import FIRST_CHIP
from vr_trt.kernels.tuning import CHIPS

FITS = Compiled(arch="sm_89", spills=0, registers=128, shared_bytes=49152, instructions=())
WITH_E4M3 = [chip for chip in CHIPS if chip >= FIRST_CHIP]


def residual_layers(chip: int, *, e4m3: bool) -> list[Any]:
    """Of a shot's start: attention's last layer, or 3x3x3 of 512 channels without a past."""
    launches = Stages(chip=chip, e4m3=e4m3).launches("encode_start")
    return [
        launch
        for launch in launches
        if launch.func is conv3d
        and launch.args[1].channels == launch.args[1].outputs == 512
        and (launch.args[1].dequantise is not None if e4m3 else launch.args[1].form.kernel == 1)
        and (extras := launch.args[3]).residual is not None
        and extras.past is None
    ]


@pytest.mark.parametrize(("chip", "e4m3"), [(86, False), (89, False), (89, True)])
def test_layers_that_join_the_stream_do_not_spill_beside_99_kib(chip: int, e4m3: bool) -> None:
    """They leave moments as well, and 128 registers, which two blocks would have, are too few."""
    facts = check_kernels(residual_layers(chip, e4m3=e4m3), chip)
    assert "spills" not in facts and facts["shared_bytes"] <= SHARED_LIMIT[chip]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chip", "e4m3"), [(c, False) for c in CHIPS] + [(c, True) for c in WITH_E4M3]
)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_no_kernel_of_the_published_vae_spills(chip: int, e4m3: bool, precision: str) -> None:
    found = list(Stages(chip=chip, precision=precision, e4m3=e4m3).facts())
    assert sum(facts["kernels"] for facts in found) > 50
    for facts in found:
        assert "spills" not in facts, spill_note(facts)
        assert facts["shared_bytes"] <= SHARED_LIMIT[chip] and facts["registers"] <= 255


@pytest.mark.slow
@pytest.mark.parametrize("model", ["seedvr2-3b", "seedvr2-7b"])
@pytest.mark.parametrize("chip", CHIPS)
def test_no_attention_of_a_published_generator_spills(chip: int, model: str) -> None:
    for precision in ("fp16", "bf16", *(["fp8"] if chip in WITH_E4M3 else [])):
        assert "spills" not in check_attention(PUBLISHED[model][0], precision, chip)


@pytest.fixture
def launches() -> list[Any]:
    return residual_layers(89, e4m3=False)[:1]


def test_what_spills_is_built_and_told(
    launches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spill_note({"arch": "sm_89"}) == ""
    monkeypatch.setattr(triton_compile, "compile_for", lambda *_: replace(FITS, spills=8))
    facts = check_kernels(launches, 89)
    [spill] = facts["spills"]
    assert spill["bytes"] == 8 and "C 512, N 512, KT 1, K 1" in spill["kernel"]
    assert spill_note(facts) == (
        "registers spill in conv3d_kernel (8 bytes a thread): it may be slower on sm_89"
    )


def test_what_has_too_little_shared_memory_is_refused(
    launches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = replace(FITS, shared_bytes=SHARED_LIMIT[89] + 1)
    monkeypatch.setattr(triton_compile, "compile_for", lambda *_: large)
    with pytest.raises(ModelError, match=r"C 512.* wants 101377 bytes .* sm_89 has 101376"):
        check_kernels(launches, 89)
