"""A shot's stages by sessions that the host feeds: arrays in, arrays out, every call waited for."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vr_trt.engines.profiles import Profile
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.generator_stage import GeneratorStage
from vr_trt.runtime.latent_windows import HostLatents
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import PixelStages
from vr_trt.runtime.state_pool import StatePool
from vr_trt.runtime.vae_stream import DecodeStream, EncodeStream, latents_per_step

Floats = NDArray[np.float32]


class HostStages:
    """`vr_trt.runtime.shot.ShotStages` of one shot; frames wait as the source's planes."""

    latents = HostLatents()

    def __init__(self, model: Model, pixels: PixelStages, profile: Profile, seed: int) -> None:
        self._model = model
        self._pixels = pixels
        self._profile = profile
        states = StatePool()
        self._encode = EncodeStream(model, states)
        self._decode = DecodeStream(model, states)
        self._generator = GeneratorStage(model, seed)

    @cached_property
    def step_latents(self) -> int:
        return latents_per_step(self._model, self._profile.latents_per_step)

    def take(self, frame: Frame) -> Frame:
        return frame

    def encode(self, chunk: Sequence[Frame], done: int) -> Floats:
        return self._encode.push(self._pixels.to_model(chunk))

    def restore(self, start: int, latents: Floats) -> Floats:
        return self._generator.restore(start, latents)

    def decode(self, latents: Floats, frames: Sequence[Frame], wanted: range) -> Iterator[Frame]:
        x = self._decode.push(latents)
        if wanted:
            part = slice(wanted.start, wanted.stop)
            yield from self._pixels.to_video(x[:, :, part], frames[part])

    def image(self, frame: Frame, taken: Frame) -> Iterator[Frame]:
        latent = self._encode.image(self._pixels.to_model([frame]))
        restored = self._generator.restore(0, latent)
        yield from self._pixels.to_video(self._decode.image(restored), [frame])

    def drain(self) -> Iterator[Frame]:
        return iter(())
