"""The full-size 3B and VAE, exported and built from random weights: does it fit, and how long?

    python -m vr_trt.bench.full_size --work FOLDER [--profile 720p] [--out FILE]

Makes checkpoints of the true keys and shapes (7.3 GB), exports each network, and builds every
stage by TensorRT-RTX for sm_89 and sm_120; no GPU is needed. Each part is a process of its own,
whose seconds and peak memory are the system's count. JSON is the last line. Speed and memory do not
depend on the values of the weights.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vr_trt.bench.machine import describe

MODEL, NETWORKS = "seedvr2-3b", ("encoder", "generator", "decoder")
MAKE = """
import sys, torch
from pathlib import Path
from vr_trt.export.config import GENERATOR_3B, VAE
from vr_trt.export.random_weights import random_checkpoint
random_checkpoint(GENERATOR_3B, Path(sys.argv[1]), torch.float16)
random_checkpoint(VAE, Path(sys.argv[2]), torch.float16)
"""


def timed(command: list[str]) -> tuple[dict[str, Any], str]:
    """Run a command; its seconds and peak memory, its exit code if not 0, and what it printed."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)  # waits here, for its usage
    child.returncode = os.waitstatus_to_exitcode(status)
    row: dict[str, Any] = {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }
    return row | ({"exit_code": child.returncode} if child.returncode else {}), printed


def export(network: str, work: Path, profile: str, precision: str) -> dict[str, Any]:
    """Export one network; the bytes of its graphs and weights."""
    folder = work / f"{network}-{profile}-{precision}"
    command = [sys.executable, "-m", "vr_trt", "export", "--model", MODEL, "--profile", profile]
    command += ["--precision", precision, "--network", network, "--out", str(folder)]
    command += ["--generator-file", str(work / "generator.safetensors")]
    command += ["--vae-file", str(work / "vae.safetensors")]
    row, _ = timed(command)
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return {"network": network} | row | {"bytes": sizes}


def build(network: str, work: Path, profile: str, precision: str) -> list[dict[str, Any]]:
    """Build a network's stages; seconds, peak memory and plan size of each."""
    folder = work / f"{network}-{profile}-{precision}"
    command = [sys.executable, "-m", "vr_trt", "engines", "build", "--model", str(folder)]
    command += ["--profile", profile, "--precision", precision, "--backend", "tensorrt-rtx"]
    targets = ["89", "120"] if network == "generator" else ["89,120"]  # one at a time: memory
    rows = []
    for sm in targets:
        _, printed = timed([*command, "--sm", sm, "--json"])
        for line in printed.splitlines():
            event = json.loads(line)
            if event.get("action") == "built":
                rows.append(_built(event, sm))
                Path(event["plan"]).unlink()  # several GB, and nobody runs it
    return rows


def _built(event: dict[str, Any], sm: str) -> dict[str, Any]:
    return {
        "stage": event["stage"],
        "sm": sm,
        "seconds": round(event["seconds"]["all"], 1),
        "peak_gib": round(event["peak_bytes"] / 2**30, 2),
        "plan_mb": round(event["bytes"] / 1e6, 1),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="room for 30 GB")
    parser.add_argument("--profile", default="720p")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--out", type=Path, help="where to keep the JSON")
    given = parser.parse_args()
    work = given.work
    work.mkdir(parents=True, exist_ok=True)
    os.environ["VR_TRT_CACHE"] = str(work / "cache")
    files = [work / "generator.safetensors", work / "vae.safetensors"]
    if not all(path.exists() for path in files):
        timed([sys.executable, "-c", MAKE, *map(str, files)])
    result: dict[str, Any] = {"machine": describe(), "command": " ".join(sys.argv[1:])}
    result |= {"profile": given.profile, "precision": given.precision, "exports": [], "builds": []}
    for network in NETWORKS:
        result["exports"].append(export(network, work, given.profile, given.precision))
        print(json.dumps(result["exports"][-1]), flush=True)
        for row in build(network, work, given.profile, given.precision):
            result["builds"].append(row)
            print(json.dumps(row), flush=True)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
