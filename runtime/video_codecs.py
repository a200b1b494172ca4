"""The video codecs of an output: which encoder, which formats, which options, which containers."""

from dataclasses import dataclass, replace
from pathlib import Path

from vr_trt.errors import UsageError
from vr_trt.runtime.hdr import TRANSFERS
from vr_trt.runtime.publish import VIDEO_MUXERS, check_name

_X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow"),
)
_ALL_CHROMA = ((1, 1), (2, 2))


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """One codec by one encoder."""

    name: str
    encoder: str  # FFmpeg's name
    containers: tuple[str, ...]  # suffixes of output files
    bits: tuple[int, ...] = (8, 10)
    chroma: tuple[tuple[int, int], ...] = _ALL_CHROMA  # the last one is used where sizes are even
    presets: tuple[str, ...] = ()
    preset: str = ""  # used where none is asked for
    preset_option: str = "preset"
    highest_crf: int = 0  # 0: the codec has no such scale
    crf: float = 0  # used where none is asked for
    hardware: bool = False  # NVENC

    def preset_for(self, name: str) -> str:
        """The encoder's own preset for one that may be another encoder's of the same codec.

        NVENC's p1 (fastest) … p7 stand for as many steps of the software encoder's scale.
        """
        if not self.hardware or name in self.presets:
            return name
        names = list(CODECS[self.name].presets)
        names = names[::-1] if self.name == "av1" else names  # that one counts speed
        return self.presets[round(names.index(name) * (len(self.presets) - 1) / (len(names) - 1))]


CODECS = {
    codec.name: codec
    for codec in (
        Codec(
            name="h264",
            encoder="libx264",
            containers=(".mp4", ".m4v", ".mov", ".mkv"),
            presets=_X26X_PRESETS,
            preset="veryfast",
            highest_crf=51,
            crf=17,
        ),
        Codec(
            name="hevc",
            encoder="libx265",
            containers=(".mp4", ".m4v", ".mov", ".mkv"),
            presets=_X26X_PRESETS,
            preset="fast",
            highest_crf=51,
            crf=18,
        ),
        Codec(
            name="av1",
            encoder="libsvtav1",
            containers=(".mp4", ".mkv", ".webm"),
            chroma=((2, 2),),
            presets=tuple(str(number) for number in range(14)),
            preset="8",
            highest_crf=63,
            crf=22,
        ),
        Codec(
            name="prores",
            encoder="prores_ks",
            containers=(".mov", ".mkv"),
            bits=(10,),
            chroma=((1, 1), (2, 1)),
            presets=("proxy", "lt", "standard", "hq", "4444"),
            preset="hq",
            preset_option="profile",
        ),
        Codec(name="ffv1", encoder="ffv1", containers=(".mkv",)),
        Codec(name="y4m", encoder="wrapped_avframe", containers=()),  # standard output alone
    )
}

# NVENC's constant quality is another measure than crf: the numbers are near, no more.
NVENC = {
    name: replace(
        CODECS[name],
        encoder=f"{name}_nvenc",
        chroma=((2, 2),),
        presets=tuple(f"p{number}" for number in range(1, 8)),
        preset="p5",
        preset_option="preset",
        hardware=True,
    )
    for name in ("h264", "hevc", "av1")
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """What a user may ask of the encoder; None leaves it to the codec and to the input."""

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    bitrate: int | None = None  # bits a second, in place of crf
    bits: int | None = None
    encoder: str = "auto"  # auto, nvenc, software: see runtime/gpu_codecs.py

    def __post_init__(self) -> None:
        if self.codec is not None and self.codec not in CODECS:
            raise UsageError(f"unknown codec {self.codec!r}: choose one of {', '.join(CODECS)}")
        if self.bits not in (None, 8, 10):
            raise UsageError(f"{self.bits} bits cannot be written: choose 8 or 10")

    def codec_for(self, path: Path, transfer: int) -> Codec:
        """The codec for a video file of that name and of that transfer (H.273).

        Raises UsageError where they do not go together. HDR is HEVC by default: players expect it.
        """
        suffix = ".mkv" if path.name == "-" else path.suffix.lower()
        usual = "hevc" if transfer in TRANSFERS else "h264"
        codec = CODECS[self.codec or ("av1" if suffix == ".webm" else usual)]
        if codec.name == "y4m":
            if path.name != "-":
                raise UsageError(f"{path}: y4m goes to standard output only; write to -o -")
        elif suffix not in codec.containers:
            check_name(path)
            raise UsageError(
                f"{path}: {codec.name} cannot be put into a {suffix}; name the output "
                f"{' or '.join(codec.containers)}, or choose another codec"
            )
        if self.bits is not None and self.bits not in codec.bits:
            raise UsageError(f"{codec.name} is written in {codec.bits[0]} bits, not {self.bits}")
        return codec


def usual_suffix(source: Path, codec: str | None) -> str:
    """What the name of an output ends in by default: as the input's, where the codec goes there."""
    fitting = CODECS[codec].containers if codec in CODECS else tuple(VIDEO_MUXERS)
    return next((s for s in (source.suffix.lower(), ".mp4", *fitting) if s in fitting), ".mp4")


def check_quality(codec: Codec, crf: float | None, preset: str | None, bitrate: int | None) -> None:
    """UsageError for what the codec's encoder does not take."""
    if crf is not None and not codec.highest_crf:
        raise UsageError(f"{codec.name} has no crf; {_remedy(codec)}")
    if crf is not None and not 0 <= crf <= codec.highest_crf:
        raise UsageError(f"crf {crf} is not between 0 and {codec.highest_crf}")
    if bitrate is not None and not codec.highest_crf:
        raise UsageError(f"{codec.name} takes no bitrate; {_remedy(codec)}")
    if bitrate is not None and (crf is not None or not 1000 <= bitrate <= 10**9):
        raise UsageError("give either a crf, or a bitrate of 1000 to 1000000000 bits per second")
    known = (*codec.presets, *(CODECS[codec.name].presets if codec.hardware else ()))
    if preset is not None and preset not in known:
        choices = f"one of {', '.join(codec.presets)}" if codec.presets else "it has none"
        raise UsageError(f"preset {preset!r} of {codec.name} is unknown; {choices}")


def _remedy(codec: Codec) -> str:
    return f"choose a preset: {', '.join(codec.presets)}" if codec.presets else "it is lossless"
