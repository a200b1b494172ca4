"""What a run would do: sizes, windows, chunks and memory, before a frame is restored."""

from dataclasses import dataclass, replace
from pathlib import Path

from vr_trt.engines.host_memory import available_bytes
from vr_trt.engines.profiles import FRAMES_PER_LATENT, Profile, load_profiles
from vr_trt.engines.rota import in_words
from vr_trt.errors import MemoryBudgetError
from vr_trt.runtime.canvas import Canvas, canvas
from vr_trt.runtime.colour import output_pixel
from vr_trt.runtime.device_memory import ACROSS_THE_HOST, CardWay, Rings, on_one_gpu, planned_sizes
from vr_trt.runtime.frames import PixelFormat, VideoInfo
from vr_trt.runtime.memory import MIB, Law, Load, peak_bytes
from vr_trt.runtime.pipeline import QUEUE_FRAMES
from vr_trt.runtime.pixel_stages import Picture
from vr_trt.runtime.publish import is_image_path
from vr_trt.runtime.scene_cuts import REACH
from vr_trt.runtime.serving import Serving
from vr_trt.runtime.vae_stream import START_LATENTS


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One run, laid out."""

    source: VideoInfo
    profile: Profile
    canvas: Canvas
    pixel: PixelFormat  # of the output
    frames: int | None  # an estimate where the file does not tell
    latents: int | None
    windows: int | None
    serving: Serving  # what runs, and on which canvas; its card's memory includes the rings
    rings: Rings | None  # between the streams of a run on one GPU
    peak_bytes: int | None  # None where the model has no law
    available_bytes: int | None
    codecs: tuple[str, ...] = ()  # who decodes and encodes, a line each
    on_card: CardWay = ACROSS_THE_HOST  # what stays in the card's memory between codecs and loop

    @property
    def fits(self) -> bool:
        """False only if it is known not to fit, into the host's memory or the card's."""
        card = self.serving.card
        return self.fits_host and (card is None or card.fits)

    @property
    def host_bytes(self) -> int | None:
        """Of the host: the law's, and what is page-locked where parts take turns on the card."""
        mirrors = self.serving.rota.mirrors
        if not mirrors:
            return self.peak_bytes
        return (self.peak_bytes or 0) + mirrors + (self.rings.host if self.rings else 0)

    @property
    def fits_host(self) -> bool:
        """False only if it is known not to fit into the host's memory."""
        if self.host_bytes is None or self.available_bytes is None:
            return True
        return self.host_bytes <= self.available_bytes


def make_plan(
    source: VideoInfo, profile: Profile, law: Law | None, output: Path, serving: Serving
) -> Plan:
    """The plan of restoring `source` into `output` with a model that obeys `law`."""
    sizes = serving.canvas
    pixel = output_pixel(
        source.pixel, sizes.out_w, sizes.out_h, is_image_path(output), output.suffix.lower()
    )
    frames = estimated_frames(source)
    rings = _rings(serving, profile, source, pixel) if frames != 1 else None
    if rings and serving.card:
        serving = replace(serving, card=serving.card.with_more(rings.device))
    latents = _latents(frames, profile)
    return Plan(
        source=source,
        profile=profile,
        canvas=sizes,
        pixel=pixel,
        frames=frames,
        latents=latents,
        windows=_windows(latents, profile),
        serving=serving,
        rings=rings,
        peak_bytes=None if law is None else peak_bytes(law, _load(source, profile, sizes, pixel)),
        available_bytes=available_bytes(),
    )


def with_card_way(plan: Plan, way: CardWay, output: PixelFormat) -> Plan:
    """The plan of a run whose codecs share frames with the loop that way."""
    rings = _rings(plan.serving, plan.profile, plan.source, output, way) if plan.rings else None
    serving = plan.serving
    if rings and plan.rings and serving.card:
        more = rings.device - plan.rings.device
        serving = replace(serving, card=serving.card.with_more(more))
    return replace(plan, rings=rings, serving=serving, on_card=way)


def check_memory(plan: Plan, law: Law | None) -> None:
    """MemoryBudgetError if the plan would not fit, with the nearest profile that would."""
    if plan.fits_host or plan.host_bytes is None or plan.available_bytes is None:
        return  # the card's memory is checked where engines are opened
    free = f"{plan.available_bytes // MIB} MiB are free"
    if rota := plan.serving.rota.sizes:
        raise MemoryBudgetError(
            f"{in_words(rota)} take turns on the card, which takes {plan.host_bytes // MIB} MiB of the "
            f"host's memory, and {free}: free some, or choose a smaller --profile"
        )
    smaller = [
        profile
        for profile in load_profiles().values()
        if profile.short_side < plan.profile.short_side and _at(plan, profile, law).fits_host
    ]
    nearest = max(smaller, key=lambda profile: profile.short_side, default=None)
    advice = f"--profile {nearest.name} would fit" if nearest else "no profile would fit"
    raise MemoryBudgetError(
        f"{plan.source.path} at {plan.profile.name} ({plan.canvas.out_w}x{plan.canvas.out_h}) needs "
        f"about {plan.host_bytes // MIB} MiB of memory and {free}: {advice}"
    )


def _at(plan: Plan, profile: Profile, law: Law | None) -> Plan:
    """The same at another profile, by a model's own graphs: only those have a law."""
    sizes = canvas(plan.source.width, plan.source.height, profile.short_side)
    serving = replace(plan.serving, canvas=sizes)
    return make_plan(plan.source, profile, law, plan.source.path, serving)


def estimated_frames(source: VideoInfo) -> int | None:
    """Frames of the file: its own word, else length times rate, else None."""
    if source.frames is not None:
        return source.frames
    if source.seconds is None:
        return None
    return max(1, round(source.seconds * float(source.frame_rate)))


def _latents(frames: int | None, profile: Profile) -> int | None:
    if frames is None or frames == 1:
        return frames
    return max(profile.window_latents, 1 + -(-(frames - 1) // FRAMES_PER_LATENT))


def _windows(latents: int | None, profile: Profile) -> int | None:
    if latents is None or latents == 1:
        return latents
    return 1 + -(-(latents - profile.window_latents) // (profile.window_latents - profile.overlap))


def _rings(
    serving: Serving,
    profile: Profile,
    source: VideoInfo,
    pixel: PixelFormat,
    way: CardWay = ACROSS_THE_HOST,
) -> Rings | None:
    """What a run on one GPU holds between its stages."""
    if not on_one_gpu(serving.selection):
        return None
    sizes = serving.canvas
    came = Picture(width=source.width, height=source.height, pixel=source.pixel)
    goes = Picture(width=sizes.out_w, height=sizes.out_h, pixel=pixel)
    return planned_sizes(serving.selection, profile, came, goes, way).rings


def _load(source: VideoInfo, profile: Profile, sizes: Canvas, pixel: PixelFormat) -> Load:
    one = source.is_image
    return Load(
        canvas_pixels=sizes.padded_w * sizes.padded_h,
        source_pixels=source.width * source.height,
        source_frame_bytes=frame_bytes(source.pixel, source.width, source.height),
        output_frame_bytes=frame_bytes(pixel, sizes.out_w, sizes.out_h),
        chunk_latents=1 if one else max(START_LATENTS, profile.latents_per_step),
        window_latents=1 if one else profile.window_latents,
        # A window, a chunk, what the detector of cuts looks at, and the reader's newest.
        frames_in_flight=1
        if one
        else profile.window + FRAMES_PER_LATENT * profile.latents_per_step + REACH + 1,
        queued_frames=1 if one else QUEUE_FRAMES + 1,
        video=not one,
    )


def frame_bytes(pixel: PixelFormat, width: int, height: int) -> int:
    """Bytes of one frame's planes."""
    shapes = pixel.plane_shapes(width, height)
    return sum(rows * columns for rows, columns in shapes) * pixel.dtype.itemsize
