"""The process that measures: tasks in by lines of JSON, results out; what breaks, breaks it alone.

    python -m vr_trt.bench.kernel_worker DEVICE [--small] [MODULE ...]

It first writes the cards of the modules' cases, then waits for tasks: {"ceiling": name}, or
{"case": name, "way": name, "do": "check" | "time" | "try", "options": block sizes to try}, or {"case":
name, "do": "compile", "options": several of those}. It catches nothing but what Triton says of block
sizes to try: a failure ends it, the last line of standard error is the reason, and `kernel_run` starts
another for the rest. With --small Triton interprets.
"""

import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from math import isfinite
from typing import IO, Any

import torch

from vr_trt.bench.case import Case, Way, cases_of
from vr_trt.bench.timing import CEILINGS, measure
from vr_trt.kernels.tuning import capability_of

CHECK_SEED, TIME_SEED = 1, 2
_LONGEST = 300  # letters of a compiler's words


class Worker:
    """The cases, and the inputs of the one at hand."""

    def __init__(self, device: str, cases: Sequence[Case], small: bool) -> None:
        self._device, self._small = device, small
        self._cases = {case.name: case for case in cases}
        self._at_hand: tuple[str, int] | None = None
        self._inputs: Any = None
        self._wanted: Sequence[torch.Tensor] | None = None

    def answer(self, task: dict[str, Any]) -> dict[str, Any]:
        """Do one task."""
        if "ceiling" in task:
            return {"value": CEILINGS[task["ceiling"]](self._device)}
        case = self._cases[task["case"]]
        if task["do"] == "check":
            return self._check(case, task["way"])
        if task["do"] == "compile":
            assert case.tunable is not None
            return self._compile(case, [case.tunable.way(sizes) for sizes in task["options"]])
        if task["do"] == "try":
            assert case.tunable is not None
            return self._try(case, case.tunable.way(task["options"]))
        return self._time(case, case.ways[task["way"]])

    def _prepare(self, case: Case, seed: int) -> None:
        if self._at_hand == (case.name, seed):
            return
        self._inputs = self._wanted = None
        if self._device == "cuda":
            torch.cuda.empty_cache()
        self._inputs = case.make(self._device, seed)
        self._at_hand = case.name, seed

    def _verdict(self, case: Case, given: Any) -> dict[str, Any]:
        if self._wanted is None:
            self._wanted = case.reference(self._inputs)
        error = case.error(_tensors(given), self._wanted)
        right = error <= case.limit  # which NaN is not
        return {"error": error if isfinite(error) else None, "right": right}

    def _check(self, case: Case, way: str) -> dict[str, Any]:
        self._prepare(case, CHECK_SEED)
        # New memory is filled with NaN: an element that is not written shows.
        torch.use_deterministic_algorithms(True, warn_only=True)
        given = case.ways[way](self._inputs)()
        torch.use_deterministic_algorithms(False)
        return self._verdict(case, given)

    def _compile(self, case: Case, ways: Sequence[Way]) -> dict[str, Any]:
        """Compile what will be tried, side by side: its compiler is most of a try's time.

        What fails here is met again when it is tried.
        """
        if self._device != "cuda":  # what interprets does not compile
            return {}
        self._prepare(case, TIME_SEED)

        def once(way: Way) -> None:
            way(self._inputs)()

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = [pool.submit(once, way) for way in ways]
        torch.cuda.synchronize()
        return {"failed": sum(one.exception() is not None for one in done)}

    def _try(self, case: Case, way: Way) -> dict[str, Any]:
        """Sizes that do not compile or do not fit harm nothing: a new process would cost more."""
        from triton import TritonError  # not before it is decided whether Triton interprets

        try:
            return self._time(case, way)
        except TritonError as error:
            return {"right": False, "why": " ".join(str(error).split())[:_LONGEST]}

    def _time(self, case: Case, way: Way) -> dict[str, Any]:
        self._prepare(case, TIME_SEED)
        call = way(self._inputs)
        row = self._verdict(case, call())
        if self._device == "cuda":
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            call()
            torch.cuda.synchronize()
            row["extra_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
        timing = measure(call, self._device, 0.02 if self._small else 0.4)
        return row | asdict(timing)


def _tensors(given: Any) -> Sequence[torch.Tensor]:
    return (given,) if isinstance(given, torch.Tensor) else tuple(given)


def _tunable(case: Case, chip: int) -> dict[str, Any] | None:
    found = case.tunable
    if found is None:
        return None
    options = dict(found.options(chip))
    return {
        "table": found.table,
        "key": dict(found.key),
        "chip": chip,
        "options": options,
        "starts": [options | dict(start) for start in found.starts],
    }


def _own_stdout() -> IO[str]:
    """Standard output for results alone: what others print goes to standard error."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return results


def main(arguments: Sequence[str]) -> None:
    """Answer until standard input ends."""
    device, small = arguments[0], "--small" in arguments
    os.environ["TRITON_INTERPRET"] = str(int(small))  # decided before a kernel is defined
    results = _own_stdout()

    def say(line: dict[str, Any]) -> None:
        results.write(json.dumps(line) + "\n")
        results.flush()

    modules = [name for name in arguments[1:] if name != "--small"]
    cases = [case for module in modules for case in cases_of(module, small)]
    chip = capability_of(torch.device(device))
    say({"cards": [case.card() | {"tunable": _tunable(case, chip)} for case in cases]})
    torch.backends.cudnn.benchmark = True  # the rivals at their best
    worker = Worker(device, cases, small)
    for line in sys.stdin:
        say(worker.answer(json.loads(line)))


if __name__ == "__main__":
    main(sys.argv[1:])
