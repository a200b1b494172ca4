"""Singular and plural in messages."""

import pytest

from vr_trt.runtime.counted import counted


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (21, "21 frames")]
)
def test_an_s_but_for_one(number: int, said: str) -> None:
    assert counted(number, "frame") == said


def test_words_that_need_more_than_an_s() -> None:
    assert counted(1, "frame is", "frames are") == "1 frame is"
    assert counted(3, "frame is", "frames are") == "3 frames are"
