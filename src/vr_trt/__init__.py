"""Video restoration with SeedVR2's one-step network, deployed as optimised engines.

from vr_trt import Restorer

with Restorer(profile="720p") as restorer:
    restorer.restore("old.mp4", "new.mp4")
"""

TYPE_CHECKING = False  # typing's own takes most of the time until Ctrl-C is handled
if TYPE_CHECKING:
    from typing import Any

    from vr_trt.runtime.restorer import Report, Restorer

__all__ = ["Report", "Restorer", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> "Any":
    """The public classes, imported when first asked for: the command line must start fast."""
    if name in ("Report", "Restorer"):
        from vr_trt.runtime import restorer

        return getattr(restorer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
