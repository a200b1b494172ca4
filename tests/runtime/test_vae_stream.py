"""Streaming through the start and step stages with the carried state."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.fake_model import make_fake_model

from vr_trt.runtime.model import Model
from vr_trt.runtime.session import Array, Session, Tensor
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.vae_stream import DecodeStream, EncodeStream, latents_per_step


def frames(count: int) -> np.ndarray:
    """[1, 3, F, 16, 24], frame i filled with i / 64."""
    ramp = np.arange(count, dtype=np.float32)[None, None, :, None, None] / 64
    return np.ascontiguousarray(np.broadcast_to(ramp, (1, 3, count, 16, 24)))


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("k", [1, 2])
def test_latents_and_back(tmp_path: Path, k: int, cut: bool) -> None:
    model = Model(make_fake_model(tmp_path, latents_per_step=k, cut=cut))
    assert latents_per_step(model, 7) == k
    encode, decode = EncodeStream(model, StatePool()), DecodeStream(model, StatePool())
    x = frames(5 + 3 * 4 * k)
    cuts = [0, 5, *(5 + 4 * k * (i + 1) for i in range(3))]
    chunks = [x[:, :, a:b] for a, b in pairwise(cuts)]
    latents = [encode.push(chunk) for chunk in chunks]
    assert [part.shape for part in latents] == [(1, 16, 2, 2, 3)] + [(1, 16, k, 2, 3)] * 3
    indices = np.concatenate(latents, axis=2)[0, 15, :, 0, 0]
    np.testing.assert_array_equal(indices, np.arange(2 + 3 * k))  # the state was carried
    back = np.concatenate([decode.push(part) for part in latents], axis=2)
    expected = x.copy()
    for start in range(1, x.shape[2], 4):
        expected[:, :, start : start + 4] = x[:, :, start : start + 4].mean(axis=2, keepdims=True)
    np.testing.assert_allclose(back, expected, atol=1e-6)


def test_a_new_stream_starts_anew(tmp_path: Path) -> None:
    model = Model(make_fake_model(tmp_path))
    first, second = EncodeStream(model, StatePool()), EncodeStream(model, StatePool())
    for _ in range(3):
        first.push(frames(4) if first.started else frames(5))
    np.testing.assert_array_equal(second.push(frames(5))[0, 15, :, 0, 0], [0, 1])


def test_an_image_has_no_state(tmp_path: Path) -> None:
    model = Model(make_fake_model(tmp_path))
    latent = EncodeStream(model, StatePool()).image(frames(1))
    assert latent.shape == (1, 16, 1, 2, 3)
    assert DecodeStream(model, StatePool()).image(latent).shape == (1, 3, 1, 16, 24)


class Spy:
    """A session that remembers what was bound to it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.on_device = session.on_device
        self.bound: dict[str, Array | Tensor] = {}

    def bind(self, name: str, value: Array | Tensor) -> None:
        self.bound[name] = value
        self._session.bind(name, value)

    def enqueue(self) -> dict[str, Tensor]:
        return self._session.enqueue()


def test_state_is_handed_on_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call reads the very array that the last one wrote, and writes another one of the pool."""
    model = Model(make_fake_model(tmp_path))
    spy = Spy(model.session("encode_step"))
    monkeypatch.setattr(
        model,
        "session",
        lambda stage, open=model.session: spy if stage == "encode_step" else open(stage),
    )
    encode = EncodeStream(model, StatePool())
    encode.push(frames(5))
    bound = []
    for _ in range(3):
        encode.push(frames(4))
        bound.append((spy.bound["state.count"], spy.bound["next.count"]))
    assert [read is written for (_, written), (read, _) in pairwise(bound)] == [True, True]
    assert all(read is not written for read, written in bound)
    assert bound[2][1] is bound[0][1]  # two arrays take turns
    assert encode.state_bytes == 4


def test_the_pool_gives_an_array_to_one_at_a_time() -> None:
    pool = StatePool()
    first, other = pool.take((2, 3), np.float32), pool.take((2, 3), np.float32)
    assert first is not other
    pool.give_back([first])
    assert pool.take((2, 3), np.float16) is not first
    assert pool.take((3, 2), np.float32) is not first
    assert pool.take((2, 3), np.float32) is first
    copied = pool.copy(first)
    assert copied is not first
    np.testing.assert_array_equal(copied, first)
