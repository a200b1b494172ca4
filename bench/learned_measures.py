"""Measures that networks make (LPIPS, DISTS, NIQE, CLIP-IQA, MUSIQ …), by pyiqa where it is there.

pyiqa fetches its networks' weights from a hub. Executed with pyiqa 0.1.16: a measure without weights
(gmsd), and the refusals of those whose weights could not be fetched (lpips, niqe).
"""

from collections.abc import Callable

from vr_trt.bench.rgb_film import Picture01
from vr_trt.errors import ModelError, UsageError


def learned_measure(name: str) -> Callable[[Picture01, Picture01], float]:
    """pyiqa's measure `name` of a picture [H, W, 3] in 0..1 and its reference.

    One that judges a picture by itself is not given the reference. Raises ModelError where pyiqa or
    the measure's weights are missing, UsageError for a name it does not know.
    """
    try:
        import pyiqa
        import torch
    except ModuleNotFoundError as error:
        raise ModelError(f"--metric {name} needs {error.name}: pip install pyiqa") from None
    if name not in pyiqa.list_models():
        raise UsageError(f"pyiqa has no measure {name!r}: see pyiqa.list_models()")
    try:
        measure = pyiqa.create_metric(name)
    except (OSError, RuntimeError) as error:  # no network, a damaged download
        raise ModelError(
            f"the weights of {name} are missing: {' '.join(str(error).split())}; "
            "let pyiqa fetch them once where there is a network"
        ) from None
    alone = measure.metric_mode == "NR"

    def measured(ours: Picture01, truth: Picture01) -> float:
        pictures = [
            torch.from_numpy(p.clip(0, 1)).permute(2, 0, 1)[None]
            for p in ((ours,) if alone else (ours, truth))
        ]
        return float(measure(*pictures))

    return measured
