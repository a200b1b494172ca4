"""Options of the TensorRT 11 builder as text, and back."""

import pytest

from vr_trt.engines.tensorrt_options import TensorRtOptions, complete
from vr_trt.errors import ModelError


def test_defaults() -> None:
    options = TensorRtOptions.from_flags(complete({}))
    assert (options.level, options.aux_streams, options.workspace_mib) == (3, None, None)
    assert options.tiling == "none" and options.timing_cache
    assert not (options.weight_streaming or options.tf32 or options.plugins)


def test_every_value_is_read_back() -> None:
    flags = complete({"level": "0", "aux_streams": "0", "tf32": "yes", "timing_cache": "no"})
    options = TensorRtOptions.from_flags({**flags, "gpu": "another builder's word"})
    assert (options.level, options.aux_streams, options.tf32) == (0, 0, True)
    assert options.timing_cache is False


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("levle", "3", "no option 'levle': it has level"),
        ("level", "6", "level is one of 0, 1, 2, 3, 4, 5"),
        ("tf32", "true", "tf32 is one of no, yes"),
        ("workspace_mib", "-1", "whole number"),
        ("workspace_mib", "1e3", "whole number"),
        ("aux_streams", "²", "whole number"),
        ("aux_streams", "99999999", "up to"),
        ("tiling", "", "tiling is one of"),
    ],
)
def test_wrong_options_are_one_line(name: str, value: str, error: str) -> None:
    with pytest.raises(ModelError, match=error):
        complete({name: value})
