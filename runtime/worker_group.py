"""Which workers a run gets, whether they fit into the machine, and how its cores are shared."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_trt.engines.local_gpu import Gpu, gpu_number
from vr_trt.errors import MemoryBudgetError, UsageError
from vr_trt.runtime.counted import counted
from vr_trt.runtime.frames import VideoInfo
from vr_trt.runtime.journal import stopped_facts
from vr_trt.runtime.local_pool import LocalPool
from vr_trt.runtime.memory import MIB
from vr_trt.runtime.onnxruntime_session import usable_cores
from vr_trt.runtime.pipe import DASH
from vr_trt.runtime.publish import is_image_path
from vr_trt.runtime.run_options import RunOptions
from vr_trt.runtime.workers import Pool

if TYPE_CHECKING:
    from vr_trt.runtime.plan import Plan
    from vr_trt.runtime.ray_pool import RayCluster


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerGroup:
    """The workers that a run may have."""

    size: int
    threads: int  # of each, for the networks' CPU work
    gpus: tuple[int, ...] = ()
    cluster: "RayCluster | None" = None

    def pool(self, open_server: Any, *, on_gpu: bool) -> Pool:
        """The workers; none is started yet."""
        if self.cluster is None:
            return LocalPool(open_server, [card_environment(gpu) for gpu in self.gpus]
                             or [{}] * self.size)  # fmt: skip
        from vr_trt.runtime.ray_pool import RayPool

        return RayPool(open_server, self.size, cores=self.threads, gpus=int(on_gpu))


@contextmanager
def open_group(options: RunOptions, threads: int) -> Iterator[WorkerGroup]:
    """The workers that `options` ask for; `threads` of each, 0 for its share of the cores."""
    if options.cluster is None:
        size = len(options.gpus) or max(1, options.workers)
        yield WorkerGroup(
            size=size, threads=threads or share(usable_cores(), size), gpus=options.gpus
        )
        return
    from vr_trt.runtime.ray_pool import LOCAL, RayCluster

    local = options.cluster == LOCAL
    each = threads or (share(usable_cores(), max(1, options.workers)) if local else 0)
    cluster = RayCluster(options.cluster, options.workers, each)
    try:
        size = options.workers or cluster.gpus or len(cluster.cores)
        fair = min(share(sum(cluster.cores), size), min(cluster.cores))
        yield WorkerGroup(size=size, threads=threads or fair, cluster=cluster)
    finally:
        cluster.close()


def share(cores: int, workers: int) -> int:
    """Cores of one worker."""
    return max(1, cores // workers)


def kept_threads(output: Path) -> int:
    """Threads of the stopped run of `output`, or 0: ONNX Runtime rounds otherwise with others."""
    threads = stopped_facts(output).get("threads")
    return threads if isinstance(threads, int) else 0


def check_spreadable(info: VideoInfo, output: Path) -> None:
    """UsageError for what several workers cannot do."""
    if info.pipe is not None or output == DASH:
        raise UsageError("workers read and write files by name: neither can be a pipe")
    if info.is_image or is_image_path(output):
        raise UsageError(
            f"{output}: several workers share a video's segments, and an image has none"
        )


def check_workers_memory(plan: "Plan", workers: int) -> None:
    """MemoryBudgetError if so many workers do not fit; it says how many would."""
    if plan.host_bytes is None or plan.available_bytes is None:
        return
    fit = plan.available_bytes // plan.host_bytes
    if workers > fit:
        advice = f"--workers {fit} would fit" if fit > 1 else "only one would fit"
        raise MemoryBudgetError(
            f"{counted(workers, 'worker')} at {plan.profile.name} "
            f"{'needs' if workers == 1 else 'need'} about {plan.host_bytes // MIB} MiB of "
            f"memory each and {plan.available_bytes // MIB} MiB are free: {advice}"
        )


def find_cards(numbers: tuple[int, ...]) -> list[Gpu]:
    """The cards of those numbers. UsageError where one is not there."""
    cards = []
    for number in numbers:
        card = gpu_number(number)
        if card is None:
            raise UsageError(f"--gpus: there is no GPU {number} here; see vr-trt doctor")
        cards.append(card)
    return cards


def card_environment(number: int) -> dict[str, str]:
    """The environment in which a worker sees one card alone; `number` is the card's here."""
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": seen[number] if number < len(seen) else str(number)}
