"""How much of a picture's detail comes from the network, for the wavelet correction (spec §7.9).

Every model has its own `detail`: the network's share of each band, the finest first. The rest of each
band, and all that lies below the last, comes from the input. Band n is what the blur of dilation 2**n
takes away.
"""

from collections.abc import Sequence

BANDS = 5
PUBLISHED_DETAIL = (1.0,) * BANDS  # of the published networks: detail up to 32 pixels is theirs


def wavelet_name(detail: Sequence[float]) -> str:
    """The part of a pixel graph's name that says its correction: `wavelet`, `wavelet-50-25` …

    ValueError for no band, more than there are, or shares outside of 0..1.
    """
    if not 1 <= len(detail) <= BANDS or not all(0 <= share <= 1 for share in detail):
        raise ValueError(f"detail {list(detail)} is not 1 to {BANDS} shares from 0 to 1")
    if tuple(detail) == PUBLISHED_DETAIL:
        return "wavelet"
    return "-".join(["wavelet", *(f"{100 * share:g}" for share in detail)])
