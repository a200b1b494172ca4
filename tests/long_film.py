"""A long film through the command line, its memory watched: `python -m tests.long_film`.

A film with sound and cuts is made, an hour of 96 x 64 if nothing else is asked for, and restored in
a process of its own by a model of tiny graphs (or by nano), at a profile as small as the film, under
a limit on the process's data (addresses: threads reserve ten times what they ever touch). Prints what
it held along the way; JSON is the last line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream
from tests.fake_model import make_fake_model

from vr_trt.bench.machine import describe

RATE, SOUND_RATE = 24, 8000
SIZE = (96, 64)
PIECE = 64  # seconds: a whole number of frames of AAC
MIB = 1 << 20
# The command line with a limit on its data, and a profile that no user has: as small as the film.
RUN = """
import resource, sys
from pathlib import Path
from vr_trt.engines import profiles
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]) << 20,) * 2)
profiles._TABLE = Path(sys.argv[2])
from vr_trt.cli import main
main(sys.argv[3:])
"""
PROFILE = """[tiny]
short_side = {side}
window = 21
overlap = 2
latents_per_step = 1
tile = "none"
cut = false
precision = "fp16"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What a run held: resident MiB after so many frames, and at most."""

    frames: int  # of the output
    seconds: float
    peak_mib: float
    limit_mib: int  # of addresses for data
    samples: tuple[tuple[int, float], ...]  # frames done, resident MiB

    def around(self, start: float, stop: float) -> float:
        """Median of the resident MiB between two shares of the way."""
        inside = [
            mib for done, mib in self.samples if start * self.frames <= done < stop * self.frames
        ]
        return median(inside) if inside else float("nan")


def make_film(path: Path, minutes: float, size: tuple[int, int] = SIZE) -> Path:
    """A minute or so of moving texture with a cut in it and a tone, encoded once, again and again."""
    with av.open(str(path), "w") as output:
        options = {"preset": "ultrafast", "crf": "30", "threads": "1"}  # no B-frames: dts is pts
        video = output.add_stream("libx264", rate=RATE, options=options)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound = output.add_stream("aac", rate=SOUND_RATE, layout="mono")
        assert isinstance(sound, AudioStream)
        packets = _encoded_piece(video, sound)
        for number in range(ceil(minutes * 60 / PIECE)):
            for stream, data, pts, duration, base, key in packets:
                packet = Packet(data)
                packet.stream, packet.time_base, packet.duration = stream, base, duration
                packet.pts = packet.dts = pts + round(number * PIECE / base)
                packet.is_keyframe = key
                output.mux(packet)
    return path


def _encoded_piece(
    video: VideoStream, sound: AudioStream
) -> list[tuple[Any, bytes, int, int, Fraction, bool]]:
    """Packets of PIECE seconds in the order of their times."""
    found: list[Any] = []
    for number, frame in enumerate(_pictures(video.width, video.height)):
        found += [(video, packet) for packet in video.encode(frame)]
        if number % RATE == 0:
            found += [(sound, packet) for packet in sound.encode(_second(number // RATE))]
    found += [(video, packet) for packet in video.encode(None)]
    taken = [
        (stream, bytes(p), p.pts, p.duration, p.time_base, p.is_keyframe)
        for stream, p in found
        if 0 <= p.pts * p.time_base < PIECE
    ]
    return sorted(taken, key=lambda one: one[2] * one[4])


def _pictures(width: int, height: int) -> Iterator[av.VideoFrame]:
    """Blocks that move a little; half way, others."""
    random = np.random.default_rng(1)
    for number in range(PIECE * RATE):
        if number % (PIECE * RATE // 2) == 0:
            cells = random.integers(30, 220, (-(-3 * height // 16), width // 8))
            texture = cells.repeat(8, 0).repeat(8, 1).astype(np.uint8)
        luma = np.roll(texture[:height], number // 2 % 8, axis=1)
        planes = np.concatenate([luma, texture[height : height * 3 // 2]])
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        yield frame


def _second(number: int) -> av.AudioFrame:
    tone = np.sin(np.arange(SOUND_RATE) * 0.3, dtype=np.float32)[None]
    frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = SOUND_RATE, number * SOUND_RATE
    frame.time_base = Fraction(1, SOUND_RATE)
    return frame


def watch(film: Path, model: str, folder: Path, limit_mib: int) -> Watched:
    """Restore `film`, and note what the process holds at each of its reports."""
    table = folder / "profiles.toml"
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        table.write_text(PROFILE.format(side=min(stream.width, stream.height)))
    options = ["--profile", "tiny", "--model", model, "--json", "--threads", "1"]
    command = [sys.executable, "-c", RUN, str(limit_mib), str(table), "run", str(film)]
    command += ["-o", str(folder / "out.mp4"), "--overwrite", *options]

    start, samples, last = time.perf_counter(), list[tuple[int, float]](), dict[str, Any]()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        last = json.loads(line)
        if last["event"] == "progress":
            samples.append((last["frames"], resident_mib(process.pid)))
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}: {errors[-500:]}")
    return Watched(
        frames=last["frames"],
        seconds=round(time.perf_counter() - start, 1),
        peak_mib=round(used.ru_maxrss / 1024, 1),
        limit_mib=limit_mib,
        samples=tuple(samples),
    )


def resident_mib(pid: int) -> float:
    """What a process holds in memory now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / MIB, 1)


def summary(watched: Watched) -> dict[str, Any]:
    """The median of every tenth of the way, and the beginning against the end."""
    return {
        **{name: value for name, value in asdict(watched).items() if name != "samples"},
        "resident_mib": [round(watched.around(i / 10, (i + 1) / 10), 1) for i in range(10)],
        "first_quarter_mib": round(watched.around(0.05, 0.25), 1),
        "last_quarter_mib": round(watched.around(0.75, 1.0), 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--model", default="fake", help="fake, or one that `run` knows")
    parser.add_argument("--limit", type=int, default=3072, help="MiB of addresses for data")
    parser.add_argument("--out", type=Path, help="where to keep the JSON")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = make_film(folder / "film.mp4", given.minutes)
        print(f"{film.stat().st_size / 1e6:.1f} MB of film", file=sys.stderr)
        fake = given.model == "fake"
        model = str(make_fake_model(folder / "fake")) if fake else given.model
        found = summary(watch(film, model, folder, given.limit))
    document = {
        "machine": describe(),
        "command": f"python -m tests.long_film --minutes {given.minutes:g} --model {given.model} "
        f"--limit {given.limit}",
        "minutes": round(found["frames"] / RATE / 60, 1),
        "model": given.model,
        **found,
    }
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
