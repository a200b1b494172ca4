"""profiles.toml and what is refused in it."""

import pytest

from vr_trt.engines.profiles import find_profile, load_profiles, parse_profiles
from vr_trt.errors import UsageError

ROW = "[a]\nshort_side = 360\nwindow = 21\noverlap = 2\nlatents_per_step = 1\ntile = 'none'\nprecision = 'fp16'\ncut = false\n"


def test_the_shipped_profiles() -> None:
    profiles = load_profiles()
    assert list(profiles) == ["360p", "540p", "720p", "1080p", "1440p", "2160p"]
    for name, profile in profiles.items():
        assert profile.short_side == int(name[:-1])
        assert profile.window_latents * 4 - 3 == profile.window


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(UsageError, match="'4k'.*360p, 540p, 720p, 1080p, 1440p, 2160p"):
        find_profile("4k")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("window = 21", "window = 20", "4n\\+1"),
        ("window = 21", "window = 1", "4n\\+1"),
        ("overlap = 2", "overlap = 6", "overlap 6"),
        ("overlap = 2", "overlap = -1", "overlap -1"),
        ("overlap = 2", "overlap = '2'", "overlap must be whole"),
        ("short_side = 360", "short_side = 360.0", "short_side must be whole"),
        ("short_side = 360", "short_side = 8", "below 16"),
        ("latents_per_step = 1", "latents_per_step = 0", "1 or more"),
        ("'fp16'", "'int3'", "int3"),
        ("'none'", "'some'", "tile must be whole"),
        ("'none'", "200", "tile 200"),
        ("'none'", "500", "tile 500"),
        ("tile = 'none'\n", "", "missing keys tile"),
        ("overlap = 2\n", "", "missing keys overlap"),
        ("overlap = 2", "overlap = 2\nspeed = 9", "unknown keys speed"),
        ("cut = false", "cut = 0", "cut must be true or false"),
        ("cut = false\n", "", "missing keys cut"),
        ("[a]", "b = 1\n[a]", "not a profile"),
    ],
)
def test_a_wrong_row_is_refused(old: str, new: str, message: str) -> None:
    assert parse_profiles(ROW)["a"].overlap == 2
    with pytest.raises((TypeError, ValueError), match=message):
        parse_profiles(ROW.replace(old, new))
