"""What a run takes on a device beside its networks: rings between the streams, fixed places.

The same numbers size the rings (runtime/device_pixels.py, runtime/device_stages.py) and tell the
memory before the start, so they cannot differ.
"""

from dataclasses import dataclass

from vr_trt.engines.profiles import FRAMES_PER_LATENT, Profile
from vr_trt.engines.selection import Selection
from vr_trt.runtime.device_tensor import tensor_bytes
from vr_trt.runtime.encoder_layout import EncoderLayout
from vr_trt.runtime.pipeline import QUEUE_FRAMES
from vr_trt.runtime.pixel_stages import Picture
from vr_trt.runtime.plane_layout import PlaneLayout
from vr_trt.runtime.scene_cuts import REACH
from vr_trt.runtime.vae_stream import START_FRAMES, START_LATENTS

LATENT, LATENT_CHANNELS = 8, 16  # pixels of a latent, of the published VAE
REORDERED = 6  # frames that a decoder keeps to put them into order
_LOOPED = ("tensorrt", "tensorrt-rtx", "triton")  # backends whose stages a loop can drive
_KINDS = {"fp32": "float32", "fp16": "float16", "bf16": "bf16", "fp8": "float16"}


@dataclass(frozen=True, slots=True)
class Rings:
    """Bytes that a run takes beside its networks."""

    device: int
    host: int  # page-locked


@dataclass(frozen=True, kw_only=True, slots=True)
class CardWay:
    """What stays in the card's memory between the loop and the codecs."""

    decoded: bool = False  # NVDEC's frames
    holds: int | None = None  # frames that NVENC has at a time; None: they cross the host
    rotation: int = 0  # degrees clockwise, after which they are upright
    mirrored: bool = False  # left and right exchanged after that
    lines: tuple[str, ...] = ()  # why not, where NVDEC or NVENC is used


ACROSS_THE_HOST = CardWay()


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSizes:
    """Sizes of one run's rings; counts are of slots."""

    source: Picture
    target: Picture
    canvas: tuple[int, int]  # width and height, padded
    window: int  # latents
    overlap: int
    step: int  # latents
    encode_cut: bool  # by resolution: x passes frame by frame
    decode_cut: bool
    latent: tuple[int, ...]  # [1, C, 1, h, w]
    encode_kind: str  # of x, on either side of the networks
    decode_kind: str
    noise_kind: str
    kernels: bool = False  # the pixels' stages are the triton backend's, not engines of graphs
    on_card: CardWay = ACROSS_THE_HOST  # which codecs hand frames over in the card's memory

    @property
    def source_layout(self) -> PlaneLayout:
        return PlaneLayout.of(self.source.pixel, self.source.width, self.source.height)

    @property
    def target_layout(self) -> PlaneLayout:
        return PlaneLayout.of(self.target.pixel, self.target.width, self.target.height)

    @property
    def chunk_frames(self) -> int:
        """Of the largest VAE call."""
        return max(START_FRAMES, FRAMES_PER_LATENT * self.step)

    @property
    def chunk_latents(self) -> int:
        return max(START_LATENTS, self.step)

    @property
    def encode_x(self) -> tuple[int, ...]:
        """Of a slot of x [1, 3, F, Hp, Wp] on its way to the encoder."""
        return self._x(self.encode_cut)

    @property
    def decode_x(self) -> tuple[int, ...]:
        """Of one on its way from the decoder."""
        return self._x(self.decode_cut)

    def _x(self, cut: bool) -> tuple[int, ...]:
        width, height = self.canvas
        return 1, 3, 1 if cut else self.chunk_frames, height, width

    @property
    def sources(self) -> int:
        """Frames wait for a window and a chunk, and the next chunk comes while one is decoded."""
        window_frames = 1 + FRAMES_PER_LATENT * (self.window - 1)
        return window_frames + 3 * self.chunk_frames

    @property
    def incoming(self) -> int:
        return 3

    @property
    def outgoing(self) -> int:
        """The host waits for a chunk only when the next one is under way."""
        return 2 * self.chunk_frames if self.on_card.holds is None else 0

    @property
    def encoder_layout(self) -> EncoderLayout:
        """Of a frame as NVENC reads it."""
        (rows, columns), *_ = self.target_layout.shapes
        return EncoderLayout(rows, columns, self.target_layout.kind, self.target.pixel.bits)

    @property
    def encoder_slots(self) -> int:
        """Those that the encoder holds, wait for it, and are handed from one thread to the next."""
        holds = self.on_card.holds
        return 0 if holds is None else holds + QUEUE_FRAMES + 4

    @property
    def decoder_frames(self) -> int:
        """FFmpeg's: they wait for the cuts' detector and the loop, are on their way to them, and come
        together at the end of the film.
        """
        return QUEUE_FRAMES + REACH + 4 + REORDERED if self.on_card.decoded else 0

    @property
    def chunks(self) -> int:
        """Of x, on either side: one is filled while the other is read."""
        return 2

    @property
    def outputs(self) -> int:
        return 3

    @property
    def windows(self) -> int:
        """Of noise, each way."""
        return 2

    @property
    def latents(self) -> int:
        """Read for the window; restored; blended, now and before; and chunks at either end."""
        return 2 * self.window + 2 * self.overlap + 3 * self.chunk_latents

    @property
    def rings(self) -> Rings:
        """All of it."""
        device = sum(self.device_rings().values()) + sum(self.device_places().values())
        return Rings(device, sum(self.host_rings().values()))

    def device_rings(self) -> dict[str, int]:
        """Bytes on the device, by what they are for."""
        noise = (*self.latent[:2], self.window, *self.latent[3:])
        planes, output = self.source_layout.bytes, self.target_layout.bytes
        x = tensor_bytes(self.encode_x, self.encode_kind)
        restored = tensor_bytes(self.decode_x, self.decode_kind)
        return {
            "source frames": self.sources * planes,
            "x": self.chunks * (x + restored),
            "output frames": self.outputs * output,
            "noise": self.windows * tensor_bytes(noise, self.noise_kind),
            "latents": self.latents * tensor_bytes(self.latent, "float32"),
            **self._codecs(),
        }

    def _codecs(self) -> dict[str, int]:
        """Bytes of frames that decoder and encoder share with the loop."""
        found, layout = {}, self.encoder_layout
        if self.on_card.decoded:
            stored = EncoderLayout(
                self.source.height, self.source.width, self.source_layout.kind, 0
            )  # FFmpeg's frames are laid out alike
            found["decoded frames"] = self.decoder_frames * stored.bytes
        if self.encoder_slots:
            found["encoder frames"] = self.encoder_slots * (layout.bytes + 8 * layout.sums)
        return found

    def device_places(self) -> dict[str, int]:
        """Bytes of the fixed places of the pixels' stages; those of the networks are in their law."""
        width, height = self.canvas
        picture = tensor_bytes((1, 3, 1, height, width), "float32")
        # Planes of more than 8 bits are float32 in a graph: twice their size.
        planes, output = (
            layout.bytes * (1 if layout.kind == "uint8" or self.kernels else 2)
            for layout in (self.source_layout, self.target_layout)
        )
        if self.kernels:  # thresholds; a picture blurred, and one corrected, as for the wavelet
            output += 7 * 4 * self.target.width * self.target.height
        return {"to_model": 2 * (planes + picture), "to_video": output + 2 * picture}

    def host_rings(self) -> dict[str, int]:
        """Bytes of page-locked memory on the host."""
        noise = (*self.latent[:2], self.window, *self.latent[3:])
        return {
            "source frames": self.incoming * self.source_layout.bytes,
            "output frames": self.outgoing * self.target_layout.bytes,
            "noise": self.windows * tensor_bytes(noise, self.noise_kind),
            "digests": self.encoder_slots * 8 * self.encoder_layout.sums,
        }


def on_one_gpu(selection: Selection) -> bool:
    """Whether all networks run on the GPU by one backend that the loop on a device can drive."""
    backends = set(selection.backends.values())
    return len(backends) == 1 and backends <= {*_LOOPED}


def planned_sizes(
    selection: Selection,
    profile: Profile,
    source: Picture,
    target: Picture,
    on_card: CardWay = ACROSS_THE_HOST,
) -> LoopSizes:
    """What a run will take, by its engines' description; they need not be there yet."""
    canvas, kind = selection.canvas, _KINDS[selection.precision]
    return LoopSizes(
        source=source,
        target=target,
        canvas=(canvas.width, canvas.height),
        window=canvas.latents,
        overlap=profile.overlap,
        step=canvas.step,
        encode_cut=_is_cut(selection, "encode", profile),
        decode_cut=_is_cut(selection, "decode", profile),
        latent=(1, _channels(selection), 1, canvas.height // LATENT, canvas.width // LATENT),
        encode_kind=kind,
        decode_kind=kind,
        noise_kind=kind,
        kernels="triton" in selection.backends.values(),
        on_card=on_card,
    )


def _channels(selection: Selection) -> int:
    """Of a latent, as the engines have them, or the published VAE."""
    engine = selection.engines.get("generator")
    shape = engine.spec.shapes.get("latent") if engine else None
    return shape[1] if shape else LATENT_CHANNELS


def _is_cut(selection: Selection, verb: str, profile: Profile) -> bool:
    """Whether a coder is; engines that are still to be built are as the profile says.

    Those of triton are always whole.
    """
    if selection.engines:
        return f"{verb}_fine_step" in selection.engines
    return profile.cut and "triton" not in selection.backends.values()
