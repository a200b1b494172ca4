"""Export nano for every size into the package: `python -m vr_trt.export.nano.embed [FOLDER]`.

The graphs compute in fp32, which CPUs want; their weights are stored in fp16, half the size.
"""

import sys
from pathlib import Path

from vr_trt.export.export_model import ExportPlan, export_model
from vr_trt.export.models import find_model_files

SHIPPED = Path(__file__).resolve().parents[2] / "engines" / "nano"


def embed(folder: Path = SHIPPED) -> Path:
    """Write nano's graphs, weights and manifest; the manifest's path."""
    return export_model(ExportPlan(model=find_model_files("nano"), store_half=True), folder, print)


if __name__ == "__main__":
    print(embed(Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED))
