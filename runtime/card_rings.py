"""What a run on one GPU takes of a card beside its networks, before its film is known."""

from dataclasses import replace

from vr_trt.engines.cards import wide_canvas
from vr_trt.engines.graphs import NETWORK_STAGES
from vr_trt.engines.profiles import Profile
from vr_trt.engines.selection import Selection
from vr_trt.runtime.canvas import canvas
from vr_trt.runtime.device_memory import planned_sizes
from vr_trt.runtime.frames import USUAL_PIXEL
from vr_trt.runtime.pixel_stages import Picture


def usual_rings(profile: Profile, backend: str, cut: bool) -> int:
    """Bytes of the loop's rings and places for a 16:9 film of the profile's own size, in 4:2:0 of
    8 bits, whose frames cross the host; of the published networks in 16 bits.
    """
    sizes = canvas(16, 9, profile.short_side)
    picture = Picture(width=sizes.out_w, height=sizes.out_h, pixel=USUAL_PIXEL)
    selection = Selection(
        canvas=wide_canvas(profile),
        how="build",
        backends=dict.fromkeys(NETWORK_STAGES, backend),
        engines={},
        precision="bf16",
        notes=(),
    )
    return planned_sizes(selection, replace(profile, cut=cut), picture, picture).rings.device
