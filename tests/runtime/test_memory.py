"""The memory law, and what the system says is free."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tests.fake_model import make_fake_model, write_manifest

from vr_trt.engines import host_memory
from vr_trt.engines.host_memory import available_bytes
from vr_trt.runtime.memory import ARENA, Law, Load, law_of, peak_bytes, stage_bytes
from vr_trt.runtime.model import read_manifest

LAW = Law(
    base=1000,
    encode=10,
    decode=20,
    generator=1,
    encode_state=3,
    decode_state=4,
    image=9,
    attention=0,
)
LOAD = Load(
    canvas_pixels=100,
    source_frame_bytes=7,
    output_frame_bytes=5,
    source_pixels=0,
    window_latents=6,
    chunk_latents=2,
    frames_in_flight=4,
    queued_frames=2,
    video=True,
)


def test_the_largest_stage_and_what_stays() -> None:
    stages = stage_bytes(LAW, LOAD)
    assert stages["encode"] == 1000 + 400  # while the decoder's state waits
    assert stages["decode"] == 2000 + 300
    assert stages["generator"] == 600 + 700
    largest = max(stages.values())
    assert peak_bytes(LAW, LOAD) == int(1000 + (4 + 2) * 7 + 2 * 5 + ARENA * largest)


def test_attention_grows_with_the_square_of_the_picture() -> None:
    law = replace(LAW, attention=8)
    assert stage_bytes(law, LOAD)["decode"] == stage_bytes(LAW, LOAD)["decode"]
    large = replace(LOAD, canvas_pixels=64_000)
    assert stage_bytes(law, large)["decode"] == 8 * 1000**2 * 2 + 3 * 64_000


def test_an_image_has_no_state() -> None:
    image = stage_bytes(LAW, replace(LOAD, video=False, window_latents=1))
    assert image["image"] == 900 and "decode" not in image
    assert image["to_video"] == stage_bytes(LAW, LOAD)["to_video"] - 700


def test_a_large_source_counts() -> None:
    assert peak_bytes(LAW, replace(LOAD, source_pixels=10**6)) > 10**6 * 4 * 3


def test_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "max", tmp_path / "current"
    limit.write_text("5000000\n")
    used.write_text("2000000\n")
    stat = tmp_path / "stat"
    monkeypatch.setattr(host_memory, "_CGROUPS", ((limit, used, stat),))
    assert available_bytes() == 3_000_000
    stat.write_text(
        "anon 1\nfile 1900000\ninactive_file 900000\nactive_file 700000\nshmem 300000\n"
    )
    assert available_bytes() == 4_600_000  # files that were read are given up when memory is short
    limit.write_text("max\n")
    free = available_bytes()
    assert free is not None and free > 50_000_000


def test_the_law_of_a_model(tmp_path: Path) -> None:
    folder = make_fake_model(tmp_path / "fake")
    assert law_of(read_manifest(folder)) is None
    write_manifest(folder, memory=asdict(LAW))
    assert law_of(read_manifest(folder)) == LAW
