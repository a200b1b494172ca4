"""What is compiled ahead of the benchmark is what the benchmark launches."""

import pytest

pytest.importorskip("triton")

from tests.chips import chips

from vr_trt.bench import warm
from vr_trt.bench.cases import vae
from vr_trt.engines.triton_compile import distinct_launches

LACKING = 1  # of a stage's kernels at most: a norm's, by the number of tiles


def kernels(stage: warm.Stage, chip: int) -> set[object]:
    return set(distinct_launches(stage.on("meta", chip).launches, chip))


@pytest.mark.parametrize("chip", chips([90, 100]))
def test_small_stages_launch_the_kernels_of_the_benchmark(chip: int) -> None:
    work = list(warm.tasks(chip))
    ahead: set[object] = set()
    count = 0
    for stage, numbers in work:
        launches = stage.on("meta", chip).launches
        ahead |= set(distinct_launches([launches[number] for number in numbers], chip))
        count += len(numbers)
    assert count == len(ahead) > 100  # each once
    assert max(len(numbers) for _, numbers in work) <= warm.PIECE
    assert warm.SIZES.keys() == vae.SIZES.keys()
    for stage in {stage for stage, _ in work}:
        name = next(name for name, size in warm.SIZES.items() if size == stage.size)
        full = warm.Stage(part=stage.part, call=stage.call, size=vae.SIZES[name], fp8=stage.fp8)
        assert len(kernels(full, chip) - ahead) <= LACKING


def test_stages_are_those_of_the_benchmark() -> None:
    """The same layers and states as a folded network of the cases has."""
    for part in vae.PARTS:
        given = vae.make(part, vae.TINY, 32, 48)("cpu", 0)
        folded = given.folded()
        kind = type(folded)
        made = kind(vae.TINY, warm.FORM)
        shapes = {name: tuple(x.shape) for name, x in made.state_dict().items()}
        assert shapes == {name: tuple(x.shape) for name, x in folded.state_dict().items()}
        first, step = warm.FRAMES[part]["start"], warm.FRAMES[part]["step"]
        assert (given.past.shape[2], given.x.shape[2]) == (first, step)
