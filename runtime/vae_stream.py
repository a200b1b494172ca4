"""The causal VAE over a shot of any length, a few frames at a time, exactly as if whole.

A shot's first call (five frames, two latents) starts the state; every further call (4k frames, k
latents) takes the state that the last one left. One frame alone is an image and has no state.
`next.X` of one call is `state.X` of the next, in arrays of runtime/state_pool.py.

A model may have its VAE cut by resolution: then the fine half, at the pixels' resolution, runs one
frame a call, and the coarse half takes or gives the features of a whole chunk. The result is the
same; the fine half's activations, the largest of all, exist for one frame only.
"""

import numpy as np
from numpy.typing import NDArray

from vr_trt.engines.profiles import FRAMES_PER_LATENT
from vr_trt.runtime.model import Model
from vr_trt.runtime.session import Array, Tensor, call, host_floats
from vr_trt.runtime.state_pool import StatePool

_NEXT, _STATE = "next.", "state."
START_FRAMES, START_LATENTS = 5, 2


class _Part:
    """A start and a step stage that hand on their state: the coder, or a half of it."""

    def __init__(
        self, model: Model, states: StatePool, name: str, source: str, result: str
    ) -> None:
        self._model = model
        self._pool = states
        self._name = name
        self._source = source
        self._result = result
        self._state: dict[str, Array | Tensor] | None = None

    @property
    def started(self) -> bool:
        """Whether it has been called."""
        return self._state is not None

    @property
    def state_bytes(self) -> int:
        """Bytes that are kept between two calls."""
        return sum(_on_host(value).nbytes for value in (self._state or {}).values())

    def push(self, value: Array | Tensor) -> Tensor:
        """The next chunk: the first one starts the state, the others step it."""
        return self._start(value) if self._state is None else self._step(value, self._state)

    def _start(self, value: Array | Tensor) -> Tensor:
        stage = f"{self._name}_start"
        session = self._model.session(stage)
        outputs = call(session, {self._source: value}, stage)
        self._model.drop(stage)
        result = outputs.pop(self._result)
        self._state = {
            name.removeprefix(_NEXT): tensor if session.on_device else self._pool.copy(tensor)
            for name, tensor in outputs.items()
        }
        return result

    def _step(self, value: Array | Tensor, state: dict[str, Array | Tensor]) -> Tensor:
        stage = f"{self._name}_step"
        session = self._model.session(stage)
        following = {} if session.on_device else {n: self._pool.like(v) for n, v in state.items()}
        bound: dict[str, Array | Tensor] = {self._source: value}
        bound |= {_STATE + name: old for name, old in state.items()}
        bound |= {_NEXT + name: array for name, array in following.items()}
        outputs = call(session, bound, stage)
        result = outputs.pop(self._result)
        self._state = dict(following) or {
            name.removeprefix(_NEXT): tensor for name, tensor in outputs.items()
        }
        self._pool.give_back(state.values())
        return result

    def push_frames(self, values: Array) -> Array:
        """Chunks of one frame each, [1, C, F, H, W] in and out."""
        frames = [self.push(values[:, :, i : i + 1]).numpy() for i in range(values.shape[2])]
        return np.concatenate(frames, axis=2)


def _on_host(value: Array | Tensor) -> Array:
    return value if isinstance(value, np.ndarray) else value.numpy()


class _Stream:
    """Encoder or decoder, whole or in halves."""

    def __init__(
        self, model: Model, states: StatePool, verb: str, source: str, result: str
    ) -> None:
        self._model = model
        self._ends = verb, source, result
        halves = {"encode": ("fine", "coarse"), "decode": ("coarse", "fine")}[verb]
        if is_cut(model, verb):
            first, second = (f"{verb}_{half}" for half in halves)
            self._parts = [
                _Part(model, states, first, source, "features"),
                _Part(model, states, second, "features", result),
            ]
        else:
            self._parts = [_Part(model, states, verb, source, result)]

    @property
    def started(self) -> bool:
        """Whether the shot's first chunk has been taken."""
        return self._parts[0].started

    @property
    def state_bytes(self) -> int:
        """Bytes that are kept between two calls."""
        return sum(part.state_bytes for part in self._parts)

    def image(self, value: Array) -> NDArray[np.float32]:
        """One frame or one latent by itself."""
        verb, source, result = self._ends
        stage = f"{verb}_image"
        outputs = call(self._model.session(stage), {source: value}, stage)
        return host_floats(outputs[result])


class EncodeStream(_Stream):
    """x [1, 3, F, H, W] in -1..1, F = 5 then 4k, to latents [1, C, 2 then k, h, w]."""

    def __init__(self, model: Model, states: StatePool) -> None:
        super().__init__(model, states, "encode", "x", "latent")

    def push(self, x: Array) -> NDArray[np.float32]:
        """The latents of the shot's next frames."""
        for fine in self._parts[:-1]:
            x = fine.push_frames(x)
        return host_floats(self._parts[-1].push(x))


class DecodeStream(_Stream):
    """Latents [1, C, 2 then k, h, w] to x [1, 3, 5 then 4k, H, W] in -1..1."""

    def __init__(self, model: Model, states: StatePool) -> None:
        super().__init__(model, states, "decode", "latent", "x")

    def push(self, latents: Array) -> NDArray[np.float32]:
        """The frames of the shot's next latents."""
        x = self._parts[0].push(latents).numpy()
        for fine in self._parts[1:]:
            x = fine.push_frames(x)
        return x.astype(np.float32, copy=False)


def is_cut(model: Model, verb: str) -> bool:
    """Whether the model's coder, `encode` or `decode`, is cut by resolution."""
    return f"{verb}_fine_step" in model.manifest.stages


def latents_per_step(model: Model, preferred: int) -> int:
    """Latents of one VAE step: the graphs' own number, or `preferred` where they take any."""
    cut = is_cut(model, "encode")
    stage, source = ("encode_coarse_step", "features") if cut else ("encode_step", "x")
    frames = model.session(stage).inputs[source][2]
    return preferred if frames is None else frames // FRAMES_PER_LATENT
