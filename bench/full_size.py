"""The full-size 3B and VAE, exported and built from random weights: does it fit, and how long?

    python -m vr_trt.bench.full_size --work FOLDER --network generator --profile 720p \\
        --precision bf16 [--sm 89 --sm 120] [--out FILE]

One network at one profile a call, since a generator takes minutes and 20 GB of memory. Makes
checkpoints of the true keys and shapes in FOLDER if they are not there (7.3 GB), exports the network
unless that was done before, and builds its stages by TensorRT-RTX, one after the other; no GPU is
needed. Export and builds are processes of their own, whose seconds and peak memory are the system's
count. What the engines need on the card is the library's own word. Plans are deleted. Speed and
memory do not depend on the values of the weights.
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
from vr_trt.bench.whole_file import write_json
from vr_trt.engines.profiles import find_profile

MODEL, NETWORKS = "seedvr2-3b", ("encoder", "generator", "decoder")
MAKE = """
import sys, torch
from pathlib import Path
from vr_trt.export.config import GENERATOR_3B, VAE
from vr_trt.export.random_weights import random_checkpoint
random_checkpoint(GENERATOR_3B, Path(sys.argv[1]), torch.float16)
random_checkpoint(VAE, Path(sys.argv[2]), torch.float16)
"""
Row = dict[str, Any]


def timed(command: list[str]) -> tuple[Row, str]:
    """Run a command; its seconds and peak memory, its exit code if not 0, and what it printed."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)  # waits here, for its usage
    child.returncode = os.waitstatus_to_exitcode(status)
    row: Row = {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),  # where the machine is shared
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }
    return row | ({"exit_code": child.returncode} if child.returncode else {}), printed


def checkpoints(work: Path) -> list[Path]:
    """The generator's and the VAE's, made now if they are not there."""
    files = [work / "generator.safetensors", work / "vae.safetensors"]
    if not all(path.exists() for path in files):
        timed([sys.executable, "-c", MAKE, *map(str, files)])
    return files


def export(given: argparse.Namespace, folder: Path) -> Row:
    """Export one network; the bytes of its graphs and weights."""
    generator, vae = checkpoints(given.work)
    command = [sys.executable, "-m", "vr_trt", "export", "--model", MODEL]
    command += ["--profile", given.profile, "--precision", given.precision]
    command += ["--network", given.network, "--out", str(folder)]
    command += ["--generator-file", str(generator), "--vae-file", str(vae)]
    row, _ = timed(command)
    return row | {"bytes": sum(path.stat().st_size for path in folder.iterdir())}


def stages(folder: Path) -> list[str]:
    """Those of a video: the start and the step, whole or in halves, and the window's generator."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return [stage for stage in manifest["stages"] if not stage.endswith("_image")]


def build(given: argparse.Namespace, folder: Path, stage: str, sm: str) -> Row:
    """Build one stage for one kind of card: seconds, memory, size, and what it needs there."""
    command = [sys.executable, "-m", "vr_trt", "engines", "build", "--model", str(folder)]
    command += ["--profile", given.profile, "--backend", "tensorrt-rtx", "--stage", stage]
    row, printed = timed([*command, "--sm", sm, "--json"])
    what = {"stage": stage, "sm": int(sm)}
    if not printed.strip():
        return what | row  # refused, or out of memory: the exit code says which
    event = json.loads(printed.splitlines()[-1])
    plan = Path(event["plan"])
    facts = json.loads((plan.parent / "manifest.json").read_text())["about"]["facts"]
    plan.unlink()  # several GB, and nobody runs it
    return what | {
        "seconds": round(event["seconds"]["all"], 1),
        "cpu_seconds": row["cpu_seconds"],  # of the command, which hashes the graphs as well
        "peak_gib": round(event["peak_bytes"] / 2**30, 2),
        "plan_mb": round(event["bytes"] / 1e6, 1),
        "activation_mb": round(facts["device_bytes"] / 1e6, 1),
        "weight_mb": round(facts["weight_bytes"] / 1e6, 1),
    }


def part(given: argparse.Namespace) -> Row:
    """One network at one profile."""
    cut = given.network != "generator" and find_profile(given.profile).cut
    folder = given.work / f"{given.network}-{given.profile}-{given.precision}"
    result: Row = {
        "command": f"python -m vr_trt.bench.full_size --work FOLDER --network {given.network} "
        f"--profile {given.profile} --precision {given.precision}",
        "network": given.network,
        "profile": given.profile,
        "precision": given.precision,
        "cut": cut,
        "commit": describe()["commit"],
    }
    log = folder.with_name(f"{folder.name}.json")  # what the export took, for later calls
    if not log.exists():
        log.write_text(json.dumps(export(given, folder)))
    result |= {"export": json.loads(log.read_text()), "builds": []}
    for sm in given.sm:
        for stage in stages(folder):
            result["builds"].append(build(given, folder, stage, sm))
            print(json.dumps(result["builds"][-1]), flush=True)
    return result


def merged(old: list[Row], new: Row) -> list[Row]:
    """The parts with `new` among them: builds of the same stage and card give way."""
    names = ("network", "profile", "precision", "cut")
    same = [p for p in old if all(p[name] == new[name] for name in names)]
    fresh = {(b["stage"], b["sm"]) for b in new["builds"]}
    kept = [b for p in same for b in p["builds"] if (b["stage"], b["sm"]) not in fresh]
    return [p for p in old if p not in same] + [new | {"builds": kept + new["builds"]}]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="room for 30 GB")
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--profile", default="720p")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--sm", action="append", help="89 and 120 if not given; may be repeated")
    parser.add_argument("--out", type=Path, help="JSON that the result is put into")
    given = parser.parse_args()
    given.sm = given.sm or ["89", "120"]
    given.work.mkdir(parents=True, exist_ok=True)
    os.environ["VR_TRT_CACHE"] = str(given.work / "cache")
    found = part(given)
    parts: list[Row] = []
    if given.out and given.out.exists():
        parts = json.loads(given.out.read_text())["parts"]
    result = {"machine": describe(), "parts": merged(parts, found)}
    if given.out:
        write_json(given.out, result)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
