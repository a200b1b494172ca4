"""The causal VAE over a shot of any length, a few frames at a time, exactly as if whole.

A shot's first call (five frames, two latents) starts the state; every further call (4k frames, k
latents) takes the state that the last one left. One frame alone is an image and has no state.
State tensors stay where the backend made them: `next.X` of one call is `state.X` of the next.
"""

from vr_trt.runtime.model import Model
from vr_trt.runtime.session import Array, Session, Tensor, call

_NEXT, _STATE = "next.", "state."
START_FRAMES, START_LATENTS = 5, 2


class _Stream:
    """The common part: which stage comes next, and the state between the calls."""

    def __init__(self, model: Model, verb: str, source: str, result: str) -> None:
        self._model = model
        self._verb = verb
        self._source = source
        self._result = result
        self._state: dict[str, Tensor] | None = None

    @property
    def started(self) -> bool:
        """Whether the shot's first chunk has been taken."""
        return self._state is not None

    def image(self, value: Array | Tensor) -> Tensor:
        """One frame or one latent by itself."""
        return call(self._session("image"), {self._source: value})[self._result]

    def push(self, value: Array | Tensor) -> Tensor:
        """The next chunk of the shot: the first one starts the state, the others step it."""
        inputs: dict[str, Array | Tensor] = {self._source: value}
        if self._state is None:
            outputs = call(self._session("start"), inputs)
            self._model.drop(f"{self._verb}_start")
        else:
            inputs.update(self._state)
            self._state = {}  # the session holds it until the call is done, then it is free
            outputs = call(self._session("step"), inputs)
        result = outputs.pop(self._result)
        self._state = {_STATE + name.removeprefix(_NEXT): v for name, v in outputs.items()}
        return result

    def _session(self, stage: str) -> Session:
        return self._model.session(f"{self._verb}_{stage}")


class EncodeStream(_Stream):
    """x [1, 3, F, H, W] in -1..1, F = 5 then 4k, to latents [1, 16, 2 then k, h, w]."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, "encode", "x", "latent")


class DecodeStream(_Stream):
    """Latents [1, 16, 2 then k, h, w] to x [1, 3, 5 then 4k, H, W] in -1..1."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, "decode", "latent", "x")
