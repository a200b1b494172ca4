"""A shot's stages on a device: everything is enqueued, nothing waited for but the host's own slots.

Every hand-over from one stream to another goes through a ring (runtime/device_ring.py), and every
stage is a graph captured before the first frame (runtime/device_call.py). Latents, blending and
the VAE's states stay on the main stream. Noise is drawn on the host from (seed, frame), as ever.

Never executed by us on a GPU. Tests run it on a device that checks the order of all that it is
asked, and hold its frames to the host's, bit for bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vr_trt.errors import InterruptedRun
from vr_trt.runtime.device_call import Call, DeviceSession, place
from vr_trt.runtime.device_decoded import DecodedPictures
from vr_trt.runtime.device_encoding import EncoderFrames
from vr_trt.runtime.device_latents import DeviceLatents, LatentPool
from vr_trt.runtime.device_memory import LoopSizes
from vr_trt.runtime.device_pixels import DevicePixels, PixelSessions, Source
from vr_trt.runtime.device_ring import HostRing, Ring
from vr_trt.runtime.device_tensor import OnDevice, tensor_bytes, to_kind
from vr_trt.runtime.device_vae import DeviceVaePart
from vr_trt.runtime.frames import Frame
from vr_trt.runtime.lanes import Lanes
from vr_trt.runtime.noise import window_noise
from vr_trt.runtime.shot import ShotStages
from vr_trt.runtime.stage_trace import active_trace


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceNetworks:
    """What runs on the main stream."""

    encoder: tuple[DeviceVaePart, ...]  # whole, or the fine half and the coarse one
    generator: DeviceSession
    decoder: tuple[DeviceVaePart, ...]  # whole, or the coarse half and the fine one


@dataclass(frozen=True, kw_only=True, slots=True)
class OnCard:
    """Codecs that share their frames with the loop."""

    decoded: DecodedPictures | None = None
    encoder: EncoderFrames | None = None


class DeviceStages:
    """`vr_trt.runtime.shot.ShotStages` for one shot after the other; `begin` before each."""

    def __init__(
        self,
        lanes: Lanes,
        networks: DeviceNetworks,
        pixels: PixelSessions,
        sizes: LoopSizes,
        seed: int,
        on_card: OnCard = OnCard(),
    ) -> None:
        """Takes all memory and captures all graphs; MemoryBudgetError where there is no room."""
        self._lanes, self._networks, self._sizes = lanes, networks, sizes
        self.on_card = on_card
        self._pixels = DevicePixels(lanes, pixels, sizes, on_card.encoder)
        self._generator = _Generator(lanes, networks.generator, sizes, seed)
        self.latents = LatentPool(lanes, sizes.latents, sizes.latent)
        self._still: ShotStages | None = None
        self._cancelled = False
        lanes.start()

    @property
    def step_latents(self) -> int:
        return self._sizes.step

    def begin(self, still: ShotStages) -> "DeviceStages":
        """For a new shot; `still` restores it should it be a single frame."""
        self._still = still
        trace = active_trace()
        if trace is not None and trace.written:
            self._lanes.follow(trace)
        for part in (*self._networks.encoder, *self._networks.decoder):
            part.begin()
        self._pixels.begin()
        return self

    def take(self, frame: Frame) -> Source:
        if self._cancelled:
            raise InterruptedRun("the run was stopped")
        return self._pixels.take(frame)

    def encode(self, chunk: Sequence[Source], done: int) -> DeviceLatents:
        """Whole, all frames at a time; cut, the fine half frame by frame."""
        lanes, (first, *rest) = self._lanes, self._networks.encoder
        group = 1 if rest else len(chunk)
        for at in range(0, len(chunk), group):
            frames = chunk[at : at + group]
            x = self._pixels.to_model(frames)
            x.read_by(lanes.main)
            held = x.tensor.part(0, first.source.shape(), x.tensor.kind)
            lanes.device.move(first.source.region(), held.region(), lanes.main)
            x.give_back(lanes.main)
            result = first.run()
            for coarse in rest:
                to = coarse.source.region(range(at, at + 1))
                lanes.device.move(to, result.region(range(1)), lanes.main)
        for source in chunk[:done]:
            self._pixels.drop(source, lanes.pre)
        for coarse in rest:
            result = coarse.run()
        return self.latents.split(result)

    def restore(self, start: int, latents: DeviceLatents) -> DeviceLatents:
        self.latents.gather(latents, self._generator.latent)
        return self.latents.split(self._generator.run(start))

    def decode(
        self, latents: DeviceLatents, frames: Sequence[Source], wanted: range
    ) -> Iterator[Frame]:
        lanes, (first, *rest) = self._lanes, self._networks.decoder
        self.latents.gather(latents, first.source)
        decoded = first.run()
        group = 1 if rest else len(frames)
        for at in range(0, len(frames), group):
            x = decoded
            for fine in rest:
                to = fine.source.region(range(1))
                lanes.device.move(to, decoded.region(range(at, at + 1)), lanes.main)
                x = fine.run()
            yield from self._give(x, frames[at : at + group], wanted, at)

    def image(self, frame: Frame, taken: Source) -> Iterator[Frame]:
        """By the host's way: its stages are opened when a picture comes, and waited for."""
        assert self._still is not None, "begin() comes first"
        self._pixels.drop(taken, self._lanes.upload)
        return map(self._pixels.given, self._still.image(frame, frame))

    def drain(self) -> Iterator[Frame]:
        yield from self._pixels.drain()
        self._lanes.read_trace()

    def cancel(self) -> None:
        """Make the next frame raise InterruptedRun, from any thread."""
        self._cancelled = True
        if self.on_card.encoder is not None:
            self.on_card.encoder.cancel()

    def close(self) -> None:
        """Wait for the device and give all memory back. Safe to call twice."""
        self._lanes.close()

    def _give(
        self, x: OnDevice, frames: Sequence[Source], wanted: range, at: int
    ) -> Iterator[Frame]:
        """The wanted ones of the decoded frames at … of a chunk."""
        slot = self._pixels.decoded(x)
        slot.read_by(self._lanes.post)
        for i, source in enumerate(frames):
            if at + i in wanted:
                yield from self._pixels.to_video(slot, i, len(frames), source)
            else:
                self._pixels.drop(source, self._lanes.post)
        slot.give_back(self._lanes.post)


class _Generator:
    """The generator with its window of noise."""

    def __init__(self, lanes: Lanes, session: DeviceSession, sizes: LoopSizes, seed: int) -> None:
        self._lanes, self._seed = lanes, seed
        self._noise, self.latent, self._restored = (
            place(lanes, session, name) for name in ("noise", "latent", "restored")
        )
        places = {"noise": self._noise, "latent": self.latent, "restored": self._restored}
        self._call = Call(lanes, lanes.main, ("generator", session), places)
        size = tensor_bytes(self._noise.shape(), self._noise.kind)
        self._drawn = HostRing(lanes, sizes.windows, size)
        self._noises = Ring(
            lanes, "windows of noise", sizes.windows, self._noise.shape(), self._noise.kind
        )

    def run(self, start: int) -> OnDevice:
        """Restore the window that lies in `latent`, whose first latent is number `start`."""
        lanes, device = self._lanes, self._lanes.device
        _, channels, count, height, width = self._noise.shape()
        noise = window_noise(self._seed, start, count, (height, width), channels)
        host = self._drawn.take()
        content = to_kind(noise, self._noise.kind).reshape(-1)
        host.memory.array().view(content.dtype)[:] = content
        slot = self._noises.take(lanes.upload)
        with lanes.span(lanes.upload, "upload noise"):
            device.upload(slot.tensor.address, host.memory, content.nbytes, lanes.upload)
        host.copied_by(lanes.upload)
        slot.filled(lanes.upload)
        slot.read_by(lanes.main)
        device.move(self._noise.region(), slot.tensor.region(), lanes.main)
        slot.give_back(lanes.main)
        self._call.run()
        return self._restored
