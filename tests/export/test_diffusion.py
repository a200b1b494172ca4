"""The sampler: schedule, condition, one step and many, with and without guidance."""

from itertools import pairwise
from math import isclose

import pytest
import torch
from tests.networks import golden_json, golden_tensors, normal
from torch import Tensor

from vr_trt.export.diffusion import Sampling, condition, sample, shifted_timestep, timesteps
from vr_trt.export.golden import relative_rms

SIZE = (2, 4, 6)
CONDITION = condition(normal(*SIZE, 16, seed=1), None, 0)
NOISE = normal(*SIZE, 16)
POSITIVE, NEGATIVE = torch.tensor([[1.0]]), torch.tensor([[-3.0]])


class Network:
    """A stand-in: a velocity that depends on all it is given, and a record of the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, float]] = []  # text, timestep

    def __call__(self, video: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
        assert video.shape == (*SIZE, 33)
        assert (video[..., 32] == 1).all()
        self.calls.append((float(text), float(timestep)))
        return 0.3 * video[..., :16] + float(text) * video[..., 16:32] + timestep / 1000


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [(1, [1000.0]), (2, [1000.0, 500.0]), (4, [1000.0, 750.0, 500.0, 250.0])],
)
def test_schedule(steps: int, wanted: list[float]) -> None:
    assert timesteps(steps) == pytest.approx(wanted)


def test_schedule_of_v1_is_even() -> None:
    levels = timesteps(50)
    assert len(levels) == 50 and levels[0] == 1000 and levels[-1] == pytest.approx(20)
    assert all(isclose(a - b, 20, abs_tol=1e-9) for a, b in pairwise(levels))


def test_one_step_is_noise_minus_velocity() -> None:
    network = Network()
    restored = sample(network, NOISE, CONDITION, (POSITIVE, None), Sampling())
    v = Network()(torch.cat([NOISE, CONDITION], -1), POSITIVE, torch.tensor(1000.0))
    assert torch.equal(restored, NOISE - v)
    assert network.calls == [(1.0, 1000.0)]


def test_guidance_of_one_never_asks_for_the_negative() -> None:
    network = Network()
    sample(network, NOISE, CONDITION, (POSITIVE, NEGATIVE), Sampling(steps=3))
    assert [text for text, _ in network.calls] == [1.0] * 3


def test_many_steps_with_guidance() -> None:
    """Euler by hand; the last step goes to 0."""
    network = Network()
    sampling = Sampling(steps=3, guidance=6.5)
    ours = sample(network, NOISE, CONDITION, (POSITIVE, NEGATIVE), sampling)
    x, by_hand = NOISE.double(), Network()
    for now, then in ((1000.0, 2000 / 3), (2000 / 3, 1000 / 3), (1000 / 3, 0.0)):
        video, t = torch.cat([x, CONDITION], -1), torch.tensor(now)
        positive, negative = (by_hand(video, text, t) for text in (POSITIVE, NEGATIVE))
        x = x - (now - then) / 1000 * (negative + 6.5 * (positive - negative))
    assert relative_rms(ours, x) <= 1e-6
    assert sorted(network.calls) == sorted(by_hand.calls) and len(network.calls) == 6


def test_guidance_of_zero_is_the_negative_alone() -> None:
    ours = sample(Network(), NOISE, CONDITION, (POSITIVE, NEGATIVE), Sampling(guidance=0))
    wanted = sample(Network(), NOISE, CONDITION, (NEGATIVE, None), Sampling())
    assert torch.allclose(ours, wanted, atol=1e-5)


def test_a_step_to_zero_recovers_what_was_mixed() -> None:
    """With the true velocity x_T - x_0 any number of steps ends at x_0."""
    clean = normal(*SIZE, 16, seed=5)

    def true(video: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
        return NOISE - clean

    for steps in (1, 2, 7):
        restored = sample(true, NOISE, CONDITION, (POSITIVE, None), Sampling(steps=steps))
        assert torch.allclose(restored, clean, atol=1e-5)


def test_the_condition_is_the_latent_and_ones() -> None:
    latent = normal(*SIZE, 16)
    plain = condition(latent, normal(*SIZE, 16, seed=2), 0.0)
    assert plain.shape == (*SIZE, 17)
    assert torch.equal(plain[..., :16], latent) and (plain[..., 16] == 1).all()


def test_the_noised_condition_is_the_golden_one() -> None:
    golden = golden_tensors("pipe_tiny")
    latent, noise = golden["latent_mode_thwc"], golden["aug_noise"]
    for level in (0.0, 0.1):
        ours = condition(latent, noise, level)
        assert relative_rms(ours, golden[f"cns{level}.cond"]) <= 2e-5


@pytest.mark.parametrize("row", golden_json("pipe_cases.json")["timestep_transform"])
def test_shifted_timesteps_of_the_reference(row: dict[str, object]) -> None:
    t, h, w = (int(str(n)) for n in row["latent_thw"])  # type: ignore[attr-defined]
    assert shifted_timestep(float(str(row["t_in"])), (t, h, w)) == pytest.approx(
        row["t_out"], rel=1e-6
    )


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        sample(Network(), NOISE, CONDITION, (POSITIVE, None), Sampling(guidance=6.5))
    with pytest.raises(ValueError, match="noise"):
        condition(normal(*SIZE, 16), None, 0.1)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="one step"):
            Sampling(steps=wrong)
    for level in (-0.1, 1.1):
        with pytest.raises(ValueError, match="noise"):
            Sampling(condition_noise=level)
