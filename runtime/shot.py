"""One shot through all stages: frames in, restored frames out, memory of one generator window.

    frames ─ chunks of 5, 4k, 4k … ─► to_model ─► encode ─► generator windows ─► decode ─► to_video

The frames wait, as the source's planes, until their latents come back: the colour correction looks
at them. Chunks of frames and of latents run in step, so the oldest waiting chunk is the one decoded.
"""

from collections import deque
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vr_trt.engines.profiles import Profile
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.generator_stage import GeneratorStage
from vr_trt.runtime.latent_windows import LatentWindows
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import PixelStages
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.vae_stream import (
    FRAMES_PER_LATENT,
    START_FRAMES,
    START_LATENTS,
    DecodeStream,
    EncodeStream,
    latents_per_step,
)


class Shot:
    """Frames of one shot in, in order; as many restored frames out, in order."""

    def __init__(self, model: Model, pixels: PixelStages, profile: Profile, seed: int) -> None:
        self._pixels = pixels
        self._profile = profile
        states = StatePool()
        self._encode = EncodeStream(model, states)
        self._decode = DecodeStream(model, states)
        self._generator = GeneratorStage(model, seed)
        self._windows = LatentWindows(
            profile.window_latents, profile.overlap, self._generator.restore
        )
        self._model = model
        self._pushed = 0
        self._owed = 0  # frames taken and not given back yet
        self._pending: list[Frame] = []  # not a whole chunk yet
        self._waiting: deque[list[Frame]] = deque()  # encoded, not decoded
        self._restored: list[NDArray[np.float32]] = []  # single latents, not a whole chunk yet

    def push(self, frame: Frame) -> Iterator[Frame]:
        """Take one frame; yield those that are finished by it."""
        self._pushed += 1
        self._owed += 1
        yield from self._take(frame)

    def finish(self) -> Iterator[Frame]:
        """End the shot: yield the frames that are left."""
        if self._pushed == 0:
            return
        if self._pushed == 1:
            yield from self._image(self._pending.pop())
            return
        last = self._pending[-1] if self._pending else self._waiting[-1][-1]
        for _ in range(
            padded_length(self._pushed, self._profile, self._step_latents) - self._pushed
        ):
            yield from self._take(last)
        for latents in self._windows.finish():
            yield from self._decoded(latents)

    @cached_property
    def _step_latents(self) -> int:
        return latents_per_step(
            self._model, self._profile.latents_per_step
        )  # opens a stage: not for an image

    def _take(self, frame: Frame) -> Iterator[Frame]:
        self._pending.append(frame)
        if len(self._pending) < self._chunk_frames():
            return
        chunk, self._pending = self._pending, []
        self._waiting.append(chunk)
        latents = self._encode.push(self._pixels.to_model(chunk))
        for restored in self._windows.push(latents):
            yield from self._decoded(restored)

    def _chunk_frames(self) -> int:
        return FRAMES_PER_LATENT * self._step_latents if self._encode.started else START_FRAMES

    def _decoded(self, latents: NDArray[np.float32]) -> Iterator[Frame]:
        """Frames of restored latents [1, 16, n, h, w], as far as they fill chunks."""
        self._restored += [latents[:, :, i : i + 1] for i in range(latents.shape[2])]
        while self._owed:
            count = self._step_latents if self._decode.started else START_LATENTS
            if len(self._restored) < count:
                return
            chunk = np.concatenate(self._restored[:count], axis=2)
            del self._restored[:count]
            frames = self._waiting.popleft()
            # The chunk's last frames may be repeats that fill it up: nobody waits for those.
            wanted = frames[: self._owed]
            self._owed -= len(wanted)
            yield from self._pixels.to_video(self._decode.push(chunk), wanted)

    def _image(self, frame: Frame) -> Iterator[Frame]:
        latent = self._encode.image(self._pixels.to_model([frame]))
        restored = self._generator.restore(0, latent)
        self._owed -= 1
        yield from self._pixels.to_video(self._decode.image(restored), [frame])


def padded_length(frames: int, profile: Profile, step_latents: int) -> int:
    """Frames that a shot of two `frames` or more is filled up to: a window or more, whole steps."""
    step = FRAMES_PER_LATENT * step_latents
    needed = max(frames, profile.window)
    return START_FRAMES + -(-(needed - START_FRAMES) // step) * step
