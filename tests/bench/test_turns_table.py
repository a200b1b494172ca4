"""The table of what taking turns spares and moves."""

import pytest

pytest.importorskip("triton")

from vr_trt.bench.turns_table import main, rows
from vr_trt.engines.cards import GIB


def test_rows_are_of_true_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    """At 360p the weights are the most: 3.3 thousand million of 16 bits."""
    nobody, *some, everybody = rows("360p")
    assert nobody[0].sizes == {} and nobody[2:] == (0, 0)
    sizes = everybody[0].sizes
    assert sizes["encoder"] < sizes["decoder"] < sizes["generator"]
    assert 6.0 < sizes["generator"] / GIB < 6.6
    assert nobody[1] - everybody[1] == pytest.approx((sizes["encoder"] + sizes["decoder"]) / GIB)
    assert all(nobody[1] > row[1] > everybody[1] and row[3] > 0 for row in some)
    main(["360p"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 5 and lines[2].startswith(f"| nobody | {nobody[1]:.1f} | 0.0 | 0.00 |")
