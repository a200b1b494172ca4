"""One film over several workers: `python -m vr_trt.bench.workers`.

A clip of several shots, once by one worker and once by each number of them that is named, each of
so many threads. Seconds are the wall's, start-up included; memory is the greatest sum over the
processes of a run of what each takes of the machine's (PSS: shared pages are counted once). The
files are compared. Prints a table, and one JSON document as the last line; `--out FILE` keeps that.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream

from vr_trt.bench.cut_clips import shot
from vr_trt.bench.machine import command_line, describe
from vr_trt.bench.whole_file import write_json

SAMPLE_SECONDS = 0.25


def make_clip(path: Path, shots: int, frames: int) -> Path:
    """So many shots of so many frames, 192 x 108."""
    random = np.random.default_rng(7)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "12"})
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = 192, 108, "yuv420p"
        number = 0
        for _ in range(shots):
            for view in shot(random, frames):
                grey = np.stack([view.round().astype(np.uint8)] * 3, -1)
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(video.encode(frame))
                number += 1
        container.mux(video.encode(None))
    return path


def measure(clip: Path, output: Path, options: list[str]) -> dict[str, Any]:
    """One run: seconds, peak memory, and a hash of the file."""
    command = [sys.executable, "-m", "vr_trt", "run", str(clip), "-o", str(output)]
    command += ["--model", "nano", "--json", *options]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = own = 0
    while process.poll() is None:
        taken = [_memory(one) for one in _family(process.pid)]
        peak, own = max(peak, sum(taken)), max(own, taken[0])
        time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - start
    _, said = process.communicate()
    if process.returncode:
        return {"options": " ".join(options), "refused": said.decode().strip()}
    return {
        "options": " ".join(options),
        "seconds": round(seconds, 1),
        "peak_mib": peak >> 20,
        "of_them_the_first_process_mib": own >> 20,
        "sha256": hashlib.sha256(output.read_bytes()).hexdigest()[:16],
    }


def _family(process: int) -> list[int]:
    """A process and all that come from it."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return [process]
    return [process, *(one for child in text.split() for one in _family(int(child)))]


def _memory(process: int) -> int:
    """Bytes; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workers", nargs="*", type=int, default=[2])
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--frames", type=int, default=25, help="of each shot")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--profile", default="360p")
    parser.add_argument("--note", default="", help="on the machine's state")
    parser.add_argument("--out", type=Path, help="where to keep the JSON")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder, "in.mp4"), given.shots, given.frames)
        fixed = ["--profile", given.profile, "--threads", str(given.threads)]
        for workers in (1, *given.workers):
            row = measure(clip, Path(folder, f"{workers}.mp4"), [*fixed, "--workers", str(workers)])
            rows.append({"workers": workers, **row})
            print(rows[-1], flush=True)
    same = len({row.get("sha256") for row in rows}) == 1
    load = [round(one, 1) for one in os.getloadavg()]
    result = {
        "machine": describe(),
        "command": command_line(),
        "note": given.note,
        "load_average_after": load,
        "same_file": same,
        "rows": rows,
    }
    if given.out:
        write_json(given.out, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
