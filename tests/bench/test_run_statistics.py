"""Percentiles and the rule that says when enough was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_trt.bench.run_statistics import percentiles, settled, spread

times = st.lists(st.floats(0.01, 100), min_size=1, max_size=40)


def test_percentiles_lie_between_neighbours() -> None:
    found = percentiles([3.0, 1.0, 2.0])
    assert found == {"p50": 2.0, "p95": pytest.approx(2.9), "p99": pytest.approx(2.98)}


@given(times)
def test_percentiles_are_in_order_and_within(values: list[float]) -> None:
    found = percentiles(values)
    assert min(values) <= found["p50"] <= found["p95"] <= found["p99"] <= max(values)


@given(times, st.floats(0.5, 2))
def test_the_spread_has_no_unit_and_no_order(values: list[float], factor: float) -> None:
    assert spread([factor * value for value in reversed(values)]) == pytest.approx(spread(values))


@given(times)
def test_one_disturbed_process_of_five_or_more_does_not_count(values: list[float]) -> None:
    calm = [1.0 + value / 1e4 for value in values] + [1.0] * 4
    assert spread([*calm, 0.1]) <= 0.011


def test_three_are_taken_whole() -> None:
    assert spread([1.0, 1.1, 0.9]) == pytest.approx(0.2)
    assert spread([1.0, 1.1, 0.9, 1.0, 1.0]) == pytest.approx(0)


def test_when_enough_was_measured() -> None:
    assert not settled([1.0, 1.0])  # two may agree by chance
    assert settled([1.0, 1.04, 1.0])
    assert not settled([1.0, 1.06, 1.0])
    assert settled([1.0, 1.06, 1.0, 1.0, 1.0])
    assert not settled([1.0, 1.06, 1.06, 1.0, 1.0])
