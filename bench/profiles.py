"""nano at each profile, end to end on this machine: `python -m vr_trt.bench.profiles`.

Each profile is a fresh process of the command line on the demo clip: frames a second include
start-up, decoding, encoding and the sound; memory is the process's peak. Prints a table, and one
JSON document as the last line; `--out FILE` keeps that. A profile that the tool refuses (it would
not fit in memory) is listed with its reason.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vr_trt.bench.machine import describe
from vr_trt.engines.profiles import load_profiles


def measure(profile: str, clip: Path, output: Path) -> dict[str, Any]:
    """Run one profile; seconds, frames a second and peak memory, or why it was refused."""
    command = [sys.executable, "-m", "vr_trt", "run", str(clip), "-o", str(output)]
    command += ["--profile", profile, "--model", "nano", "--overwrite", "--json"]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stderr is not None
    out, err = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)  # waits here, for its usage
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if child.returncode:
        return {"profile": profile, "refused": err.strip(), "exit_code": child.returncode}
    done = json.loads(out.splitlines()[-1])
    return {
        "profile": profile,
        "frames": done["frames"],
        "width": done["width"],
        "height": done["height"],
        "seconds": round(seconds, 2),
        "fps": round(done["frames"] / seconds, 3),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("profiles", nargs="*", help="if not all of them")
    parser.add_argument("--frames", type=int, default=48, help="of the demo clip")
    parser.add_argument("--out", type=Path, help="where to keep the JSON")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "degraded.mp4")
        maker = [sys.executable, "-m", "vr_trt.bench.demo_clip", str(clip)]
        maker += ["--frames", str(given.frames)]
        subprocess.run(maker, check=True, stdout=subprocess.DEVNULL)
        for profile in given.profiles or load_profiles():
            row = measure(profile, clip, Path(folder, "restored.mp4"))
            rows.append(row)
            print(_line(row), flush=True)
    result = {"machine": describe(), "command": " ".join(sys.argv[1:]), "rows": rows}
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def _line(row: dict[str, Any]) -> str:
    if "refused" in row:
        return f"{row['profile']:>6}  {row['refused']}"
    return (
        f"{row['profile']:>6}  {row['width']}x{row['height']}  {row['frames']} frames  "
        f"{row['seconds']:7.1f} s  {row['fps']:6.2f} fps  {row['peak_mib']:6} MiB"
    )


if __name__ == "__main__":
    main()
