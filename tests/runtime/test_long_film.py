"""A film of any length takes the memory of a short one."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.fake_model import make_fake_model
from tests.long_film import RATE, Watched, make_film, summary, watch

from vr_trt.bench import quality

RESULTS = Path(quality.__file__).with_name("results")
FLAT = 1.03  # the end by the beginning


def test_the_summary_sees_memory_that_grows() -> None:
    def found(growth: float) -> dict[str, Any]:
        samples = tuple((frames, 100 + growth * frames / 1000) for frames in range(0, 1000, 10))
        return summary(
            Watched(frames=1000, seconds=1, peak_mib=200, limit_mib=500, samples=samples)
        )

    assert found(0)["last_quarter_mib"] == found(0)["first_quarter_mib"] == 100
    grown = found(40)
    assert grown["last_quarter_mib"] > FLAT * grown["first_quarter_mib"]
    assert grown["resident_mib"][0] < grown["resident_mib"][-1]


@pytest.mark.parametrize("name", ["cpu-long-film.json", "cpu-long-film-nano.json"])
def test_the_committed_runs_were_flat(name: str) -> None:
    found = json.loads((RESULTS / name).read_text())
    assert found["last_quarter_mib"] < FLAT * found["first_quarter_mib"]
    assert found["peak_mib"] < found["limit_mib"]
    assert found["minutes"] >= (30 if found["model"] == "fake" else 2)
    assert found["frames"] == pytest.approx(found["minutes"] * 60 * RATE, abs=RATE * 6)


@pytest.mark.slow
def test_ten_minutes_are_flat(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", 10)
    model = str(make_fake_model(tmp_path / "fake"))
    found = summary(watch(film, model, tmp_path, 3072))
    assert found["frames"] >= 10 * 60 * RATE
    assert found["last_quarter_mib"] < FLAT * found["first_quarter_mib"]
