"""Profiles: what a run, an export and an engine are sized for."""

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from vr_trt.errors import UsageError

Precision = Literal["fp32", "fp16", "bf16", "fp8"]

FRAMES_PER_LATENT = 4  # after a shot's first frame, which has a latent of its own
MIN_TILE = 256  # pixels; below, most of a tile would be its overlap
_TABLE = Path(__file__).with_name("profiles.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One row of profiles.toml, validated."""

    name: str
    short_side: int  # pixels
    window: int  # frames, 4n+1
    overlap: int  # latents
    latents_per_step: int
    precision: Precision
    cut: bool  # the VAE's high resolutions as stages of their own, one frame a call
    tile: int | None = None  # pixels of a side of the VAE's tiles; None: whole frames

    def __post_init__(self) -> None:
        if self.short_side < 16:
            raise ValueError(
                f"profile {self.name}: short_side {self.short_side} is below 16 pixels"
            )
        if self.window < 5 or self.window % FRAMES_PER_LATENT != 1:
            raise ValueError(
                f"profile {self.name}: window {self.window} is not 4n+1 frames, 5 or more"
            )
        if not 0 <= self.overlap < self.window_latents:
            raise ValueError(
                f"profile {self.name}: overlap {self.overlap} does not fit a window of "
                f"{self.window_latents} latents"
            )
        if self.latents_per_step < 1:
            raise ValueError(f"profile {self.name}: latents_per_step must be 1 or more")
        if self.tile is not None and (self.tile < MIN_TILE or self.tile % 16):
            raise ValueError(
                f"profile {self.name}: tile {self.tile} is no multiple of 16 pixels, "
                f"{MIN_TILE} or more, nor 'none'"
            )
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"profile {self.name}: precision {self.precision!r} is none of "
                f"{', '.join(get_args(Precision))}"
            )

    @property
    def window_latents(self) -> int:
        """Latents in one generator window."""
        return (self.window - 1) // FRAMES_PER_LATENT + 1


def parse_profiles(text: str) -> dict[str, Profile]:
    """The profiles of a TOML table `text`, by name; ValueError or TypeError for a wrong row."""
    known = {field.name for field in fields(Profile)} - {"name"}
    profiles = {}
    for name, row in tomllib.loads(text).items():
        _check_row(name, row, known)
        tile = None if row["tile"] == "none" else row["tile"]
        profiles[name] = Profile(name=name, **{**row, "tile": tile})
    return profiles


def _check_row(name: str, row: Any, known: set[str]) -> None:
    if not isinstance(row, dict):
        raise TypeError(f"{name} is not a profile: write [{name}] and its keys below it")
    if unknown := sorted(row.keys() - known):
        raise ValueError(f"profile {name}: unknown keys {', '.join(unknown)}")
    if missing := sorted(known - row.keys()):
        raise ValueError(f"profile {name}: missing keys {', '.join(missing)}")
    if type(row["cut"]) is not bool:
        raise ValueError(f"profile {name}: cut must be true or false")
    whole = known - {"precision", "cut"} - ({"tile"} if row["tile"] == "none" else set())
    wrong = [key for key in whole if type(row[key]) is not int]
    if wrong:
        raise ValueError(f"profile {name}: {', '.join(sorted(wrong))} must be whole numbers")


@cache
def load_profiles() -> dict[str, Profile]:
    """Every profile of engines/profiles.toml by name, smallest first."""
    return parse_profiles(_TABLE.read_text(encoding="utf-8"))


def find_profile(name: str) -> Profile:
    """The profile called `name`; UsageError lists the names there are."""
    profiles = load_profiles()
    if name not in profiles:
        raise UsageError(f"unknown profile {name!r}: choose one of {', '.join(profiles)}")
    return profiles[name]
