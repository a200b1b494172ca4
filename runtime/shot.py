"""One shot through all stages: frames in, restored frames out, memory of one generator window.

    frames ─ chunks of 5, 4k, 4k … ─► to_model ─► encode ─► generator windows ─► decode ─► to_video

The frames wait, as the source's planes, until their latents come back: the colour correction looks
at them. Frames and latents run in step, so the oldest waiting frames are those that are decoded.
Work may be taken up in the middle (runtime/entry.py): then every stage begins where the entry says.
What is done when is decided here; where it is done, on the host or on a device, is the stages'.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from vr_trt.engines.profiles import FRAMES_PER_LATENT, Profile
from vr_trt.runtime.entry import Entry
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.latent_windows import LatentMath, Latents, LatentWindows
from vr_trt.runtime.vae_stream import START_FRAMES, START_LATENTS

Taken = Any  # a frame as the stages hold it until it is decoded


class ShotStages(Protocol):
    """What a shot's stages can do: runtime/host_stages.py, runtime/device_stages.py."""

    @property
    def latents(self) -> LatentMath:
        """How latents are joined and blended."""

    @property
    def step_latents(self) -> int:
        """Latents of one VAE step; may open a stage."""

    def take(self, frame: Frame) -> Taken:
        """Hold a frame until it was decoded, or was encoded and will not be."""

    def encode(self, chunk: Sequence[Taken], done: int) -> Latents:
        """The latents of the shot's next frames, of which the first `done` are not decoded."""

    def restore(self, start: int, latents: Any) -> Latents:
        """Latents start … of the shot, restored by the generator."""

    def decode(self, latents: Any, frames: Sequence[Taken], wanted: range) -> Iterator[Frame]:
        """Decode the shot's next latents; the restored ones of `frames`, those in `wanted`.

        Frames may come later, in the order of the calls.
        """

    def image(self, frame: Frame, taken: Taken) -> Iterator[Frame]:
        """The one frame of a shot, which was taken, as a picture."""

    def drain(self) -> Iterator[Frame]:
        """The frames that have not come yet."""


class Shot:
    """Frames of one shot in, in order; as many restored frames out, in order.

    With an entry, the frames from `entry.first_read` on go in and those from `entry.first_given` on
    come out.
    """

    def __init__(self, stages: ShotStages, profile: Profile, entry: Entry | None = None) -> None:
        self._entry = entry = entry or Entry()
        self._stages = stages
        self._profile = profile
        self._windows = LatentWindows(
            profile.window_latents, profile.overlap, stages.restore, entry.window, stages.latents
        )
        self._pushed = entry.first_read  # frames of the shot, those before the entry counted
        self._chunked = entry.first_read  # frames that went to the encoder, likewise
        self._given = FRAMES_PER_LATENT * entry.decoded  # frames that came from the decoder
        self._encoded = entry.encoded  # latents
        self._released = entry.window  # latents that came from the generator
        self._last: Frame | None = None  # that was pushed
        self._pending: list[Taken] = []  # not a whole chunk yet
        self._waiting: deque[Taken] = deque()  # encoded, not decoded
        self._restored: list[Latents] = []  # single latents, not a whole chunk yet

    @property
    def step_frames(self) -> int:
        """Frames of one VAE step."""
        return FRAMES_PER_LATENT * self._stages.step_latents

    def push(self, frame: Frame) -> Iterator[Frame]:
        """Take one frame; yield those that are finished by it."""
        self._pushed += 1
        self._last = frame
        yield from self._take(frame)

    def finish(self) -> Iterator[Frame]:
        """End the shot: yield the frames that are left."""
        if self._last is None:
            return
        if self._pushed == 1:
            self._given += 1
            yield from self._stages.image(self._last, self._pending.pop())
            return
        length = padded_length(self._pushed, self._profile, self._stages.step_latents)
        for _ in range(length - self._pushed):
            yield from self._take(self._last)
        for latents in self._windows.finish():
            yield from self._decode_frames(latents)
        yield from self._stages.drain()

    def _take(self, frame: Frame) -> Iterator[Frame]:
        self._pending.append(self._stages.take(frame))
        first_call = self._chunked == self._entry.first_read
        if len(self._pending) < (START_FRAMES if first_call else self.step_frames):
            return
        chunk, self._pending = self._pending, []
        done = max(0, self._given - self._chunked)
        self._waiting += chunk[done:]
        self._chunked += len(chunk)
        latents = self._stages.encode(chunk, done)
        wanted = latents[:, :, max(0, self._entry.window - self._encoded) :]
        self._encoded += latents.shape[2]
        for restored in self._windows.push(wanted):
            yield from self._decode_frames(restored)

    def _decode_frames(self, latents: Latents) -> Iterator[Frame]:
        """Frames of restored latents [1, C, n, h, w], as far as they fill chunks."""
        for i in range(latents.shape[2]):
            if self._released >= self._entry.decoded:
                self._restored.append(latents[:, :, i : i + 1])
            self._released += 1
        while self._given < self._pushed:
            first_call = self._given == FRAMES_PER_LATENT * self._entry.decoded
            count = START_LATENTS if first_call else self._stages.step_latents
            if len(self._restored) < count:
                return
            length = START_FRAMES if first_call else self.step_frames
            chunk = self._stages.latents.join(self._restored[:count])
            del self._restored[:count]
            frames = [self._waiting.popleft() for _ in range(length)]
            # The last frames may be repeats that fill the chunk up: nobody waits for those.
            first = max(0, self._entry.first_given - self._given)
            wanted = range(first, max(first, min(length, self._pushed - self._given)))
            self._given += length
            yield from self._stages.decode(chunk, frames, wanted)


def padded_length(frames: int, profile: Profile, step_latents: int) -> int:
    """Frames that a shot of two `frames` or more is filled up to: a window or more, whole steps."""
    step = FRAMES_PER_LATENT * step_latents
    needed = max(frames, profile.window)
    return START_FRAMES + -(-(needed - START_FRAMES) // step) * step
