"""Profiles of a third of their size in every process that is started, see conftest's `small_pictures`.

Python imports a module of this name when it starts, if its folder is in PYTHONPATH.
"""

from dataclasses import replace

from vr_trt.engines import profiles
from vr_trt.engines.profiles import Profile


def thirds() -> dict[str, Profile]:
    """The profiles by their names: 360p is 120 pixels high."""
    rows = profiles.load_profiles()
    return {name: replace(row, short_side=row.short_side // 3) for name, row in rows.items()}


if __name__ == "sitecustomize":  # not where the tests import it
    small = thirds()
    profiles.load_profiles = lambda: small  # type: ignore[assignment]
