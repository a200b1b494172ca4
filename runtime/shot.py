"""One shot through all stages: frames in, restored frames out, memory of one generator window.

    frames ─ chunks of 5, 4k, 4k … ─► to_model ─► encode ─► generator windows ─► decode ─► to_video

The frames wait, as the source's planes, until their latents come back: the colour correction looks
at them. Frames and latents run in step, so the oldest waiting frames are those that are decoded.
Work may be taken up in the middle (runtime/entry.py): then every stage begins where the entry says.
"""

from collections import deque
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vr_trt.engines.profiles import Profile
from vr_trt.runtime.entry import Entry
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
    """Frames of one shot in, in order; as many restored frames out, in order.

    With an entry, the frames from `entry.first_read` on go in and those from `entry.first_given` on
    come out.
    """

    def __init__(
        self,
        model: Model,
        pixels: PixelStages,
        profile: Profile,
        seed: int,
        entry: Entry | None = None,
    ) -> None:
        self._entry = entry = entry or Entry()
        self._pixels = pixels
        self._profile = profile
        states = StatePool()
        self._encode = EncodeStream(model, states)
        self._decode = DecodeStream(model, states)
        self._generator = GeneratorStage(model, seed)
        self._windows = LatentWindows(
            profile.window_latents, profile.overlap, self._generator.restore, entry.window
        )
        self._model = model
        self._pushed = entry.first_read  # frames of the shot, those before the entry counted
        self._chunked = entry.first_read  # frames that went to the encoder, likewise
        self._given = FRAMES_PER_LATENT * entry.decoded  # frames that came from the decoder
        self._encoded = entry.encoded  # latents
        self._released = entry.window  # latents that came from the generator
        self._pending: list[Frame] = []  # not a whole chunk yet
        self._waiting: deque[Frame] = deque()  # encoded, not decoded
        self._restored: list[NDArray[np.float32]] = []  # single latents, not a whole chunk yet

    @property
    def step_frames(self) -> int:
        """Frames of one VAE step."""
        return FRAMES_PER_LATENT * self._step_latents

    def push(self, frame: Frame) -> Iterator[Frame]:
        """Take one frame; yield those that are finished by it."""
        self._pushed += 1
        yield from self._take(frame)

    def finish(self) -> Iterator[Frame]:
        """End the shot: yield the frames that are left."""
        if self._pushed == self._entry.first_read:
            return
        if self._pushed == 1:
            yield from self._image(self._pending.pop())
            return
        last = self._pending[-1] if self._pending else self._waiting[-1]
        for _ in range(
            padded_length(self._pushed, self._profile, self._step_latents) - self._pushed
        ):
            yield from self._take(last)
        for latents in self._windows.finish():
            yield from self._decode_frames(latents)

    @cached_property
    def _step_latents(self) -> int:
        return latents_per_step(
            self._model, self._profile.latents_per_step
        )  # opens a stage: not for an image

    def _take(self, frame: Frame) -> Iterator[Frame]:
        self._pending.append(frame)
        if len(self._pending) < (self.step_frames if self._encode.started else START_FRAMES):
            return
        chunk, self._pending = self._pending, []
        self._waiting += chunk[max(0, self._given - self._chunked) :]
        self._chunked += len(chunk)
        latents = self._encode.push(self._pixels.to_model(chunk))
        wanted = latents[:, :, max(0, self._entry.window - self._encoded) :]
        self._encoded += latents.shape[2]
        for restored in self._windows.push(wanted):
            yield from self._decode_frames(restored)

    def _decode_frames(self, latents: NDArray[np.float32]) -> Iterator[Frame]:
        """Frames of restored latents [1, C, n, h, w], as far as they fill chunks."""
        for i in range(latents.shape[2]):
            if self._released >= self._entry.decoded:
                self._restored.append(latents[:, :, i : i + 1])
            self._released += 1
        while self._given < self._pushed:
            count = self._step_latents if self._decode.started else START_LATENTS
            if len(self._restored) < count:
                return
            length = self.step_frames if self._decode.started else START_FRAMES
            chunk = np.concatenate(self._restored[:count], axis=2)
            del self._restored[:count]
            frames = [self._waiting.popleft() for _ in range(length)]
            x = self._decode.push(chunk)
            # The last frames may be repeats that fill the chunk up: nobody waits for those.
            first = max(0, self._entry.first_given - self._given)
            last = min(length, self._pushed - self._given)
            self._given += length
            if first < last:
                yield from self._pixels.to_video(x[:, :, first:last], frames[first:last])

    def _image(self, frame: Frame) -> Iterator[Frame]:
        latent = self._encode.image(self._pixels.to_model([frame]))
        restored = self._generator.restore(0, latent)
        self._given += 1
        yield from self._pixels.to_video(self._decode.image(restored), [frame])


def padded_length(frames: int, profile: Profile, step_latents: int) -> int:
    """Frames that a shot of two `frames` or more is filled up to: a window or more, whole steps."""
    step = FRAMES_PER_LATENT * step_latents
    needed = max(frames, profile.window)
    return START_FRAMES + -(-(needed - START_FRAMES) // step) * step
