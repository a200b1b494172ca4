"""Entering a shot in the middle so that the result is the same to the last bit.

The causal VAE looks back a bounded number of frames, so a run that starts some way before the first
frame that is wanted has the same state there as one that came from the shot's start. No state is
kept on disk: at 1080p that would be gigabytes a segment. How far back is enough depends on the
network; whether it was enough is checked (see runtime/film.py), and if not the shot is done again
from its start, which always is.
"""

from dataclasses import dataclass

from vr_trt.engines.profiles import FRAMES_PER_LATENT, Profile

# Latents that the published VAE's encoder or decoder looks back, rounded up: each temporal kernel of
# three looks two frames back at its resolution. Counted for 2 (encoder) and 3 (decoder) blocks a
# level; nano has fewer.
WARM_LATENTS = 40
CHECKED_FRAMES = FRAMES_PER_LATENT  # made a second time before the first wanted one, and compared


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Where in a shot each stage begins; all are zero at the shot's start."""

    frame: int = 0  # the first that is wanted
    encoded: int = 0  # latents: the first that is encoded
    window: int = 0  # the first of the first generator window
    decoded: int = 0  # the first that is decoded

    @property
    def first_read(self) -> int:
        """The first frame of the shot that is needed."""
        return FRAMES_PER_LATENT * self.encoded

    @property
    def first_given(self) -> int:
        """The first frame that comes out: those that are compared come before the wanted ones."""
        return max(0, self.frame - CHECKED_FRAMES)


def entry_at(frame: int, profile: Profile, step_latents: int, warm: int = WARM_LATENTS) -> Entry:
    """The entry for frame number `frame` of a shot, where a VAE chunk begins (4n+1), or 0.

    Calls stay cut as they would be from the shot's start: multiples of `step_latents`.
    """
    if frame == 0:
        return Entry()
    warm = max(warm, profile.window_latents)
    stride = profile.window_latents - profile.overlap
    latent = -(-frame // FRAMES_PER_LATENT)
    decoded = _whole_steps(latent - warm, step_latents)
    # A window's first latents are blended with the window before: they are of no use here.
    windows = max(0, decoded - profile.overlap) // stride
    encoded = _whole_steps(windows * stride - warm, step_latents)
    return Entry(frame=frame, encoded=encoded, window=windows * stride, decoded=decoded)


def _whole_steps(latents: int, step: int) -> int:
    return max(0, latents) // step * step
