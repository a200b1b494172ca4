"""The parity command: on the golden folder, damaged copies, parts of it, and others like it."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.golden_like import GENERATORS, write_golden_like
from tests.networks import GOLDEN, GOLDEN_GENERATORS
from torch import Tensor

from vr_trt.errors import UsageError
from vr_trt.export.golden import relative_rms
from vr_trt.export.parity import TOLERANCE, check, main

FILES = sorted(path.name for path in GOLDEN.iterdir())
ALONE = {  # files that make cases without any other
    "colorfix.safetensors", "keys_3b.json", "keys_7b.json", "keys_vae.json", "pipe_cases.json",
    "windows.json",
}  # fmt: skip
Lines = dict[str, tuple[str, float]]  # case -> ok or FAIL, error


def copy(to: Path, names: list[str]) -> Path:
    for name in names:
        shutil.copy(GOLDEN / name, to / name)
    return to


def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, Lines]:
    """The exit code and the printed cases."""
    code = check(folder)
    *lines, total = capsys.readouterr().out.splitlines()
    cases: Lines = {}
    for line in lines:
        verdict, error, name = line.split(maxsplit=2)
        cases[name] = verdict, float(error)
    failed = [name for name, (verdict, _) in cases.items() if verdict == "FAIL"]
    assert len(cases) == len(lines)  # no name twice
    assert total == f"{len(cases)} cases, {len(failed)} above {TOLERANCE:g}"
    assert code == bool(failed)
    return code, cases


def failures(cases: Lines) -> set[str]:
    return {name for name, (verdict, _) in cases.items() if verdict == "FAIL"}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "vr_trt.export.parity", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def edit_tensors(path: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def edit_json(path: Path, edit: Callable[[Any], None]) -> None:
    contents = json.loads(path.read_text())
    edit(contents)
    path.write_text(json.dumps(contents))


def test_command_passes_the_golden_folder() -> None:
    done = command(str(GOLDEN))
    assert (done.returncode, done.stderr) == (0, "")
    *lines, total = done.stdout.splitlines()
    assert total == f"{len(lines)} cases, 0 above 2e-05"
    assert len(lines) == 229
    assert all(line.startswith("ok ") and float(line.split()[1]) <= 2e-5 for line in lines)


def test_every_golden_tensor_is_a_case(capsys: pytest.CaptureFixture[str]) -> None:
    _, cases = run(GOLDEN, capsys)
    wanted = {"windows 33x2x3 shifted: 5", "keys_7b: 1128 keys", "colour adain", "colour wavelet"}
    outputs = {
        name: load_file(GOLDEN / f"dit_{name}_out.safetensors") for name in GOLDEN_GENERATORS
    }
    wanted |= {
        f"generator {name} {key.removesuffix('.out')} out"
        for name, tensors in outputs.items()
        for key in tensors
        if key.endswith(".out")
    }
    assert len(wanted) == 4 + 18
    for name, config in GOLDEN_GENERATORS.items():
        keys = load_file(GOLDEN / f"dit_{name}_t9_intermediates.safetensors")
        wanted |= {f"generator {name} t9 {key}" for key in keys}
        assert f"block{config.layers - 1}.vid" in keys
    inside = load_file(GOLDEN / "vae_tiny_t5_intermediates.safetensors")
    wanted |= {f"vae_tiny t5 {key}" for key in inside}
    outside = load_file(GOLDEN / "vae_tiny_cases.safetensors")
    names = [key.split(".") for key in outside if not key.endswith((".x", ".z"))]
    wanted |= {f"vae_tiny {case} {key}" for case, key in names}
    chain = {"noise", "aug_noise", "txt", "txt_neg", "video_u8_tchw", "latent_sampled_thwc"}
    renamed = {"vae_in_cthw": "vae_in", "latent_mode_thwc": "latent"}
    made = load_file(GOLDEN / "pipe_tiny.safetensors").keys() - chain
    wanted |= {f"pipe_tiny {renamed.get(key, key)}" for key in made}
    assert wanted - cases.keys() == set()
    assert not failures(cases)


def scale_weight(key: str) -> Callable[[dict[str, Tensor]], None]:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors[key] = tensors[key] * 1.1

    return edit


GENERATOR_FILES = ["dit_cases.json", "dit_input_img.safetensors", "dit_v2_tiny_out.safetensors",
                   "dit_v2_tiny_weights.safetensors"]  # fmt: skip
VAE_FILES = ["vae_cases.json", "vae_tiny_weights.safetensors", "vae_tiny_cases.safetensors",
             "vae_tiny_t5_intermediates.safetensors"]  # fmt: skip


@pytest.mark.parametrize(
    "key",
    [
        "blocks.3.ada.all.mlp_gate",
        "blocks.1.attn.norm_k.txt.weight",
        "blocks.0.mlp.txt.proj_out.weight",
        "vid_out_ada.out_shift",
        "emb_in.proj_hid.bias",
    ],
)
def test_a_damaged_weight_fails_the_generator(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(tmp_path, GENERATOR_FILES)
    edit_tensors(tmp_path / "dit_v2_tiny_weights.safetensors", scale_weight(key))
    assert failures(run(tmp_path, capsys)[1]) == {"generator v2_tiny img out"}


@pytest.mark.parametrize(
    ("key", "sides"),
    [
        ("encoder.conv_out.bias", {"moments"}),
        ("decoder.up_blocks.1.upsamplers.0.upscale_conv.bias", {"dec"}),
    ],
)
def test_a_damaged_weight_fails_the_vae(
    key: str, sides: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(tmp_path, VAE_FILES)
    edit_tensors(tmp_path / "vae_tiny_weights.safetensors", scale_weight(key))
    failed = failures(run(tmp_path, capsys)[1])
    assert {f"vae_tiny {case} {side}" for case in ("img", "t5", "t13") for side in sides} <= failed
    assert not any(f" {side}." in name for name in failed for side in
                   ({"encoder", "decoder"} - {key.split(".")[0]}))  # fmt: skip


@pytest.mark.parametrize(
    ("file", "key", "case", "others"),
    [
        ("dit_v2_tiny_out", "img.out", "generator v2_tiny img out", GENERATOR_FILES),
        ("vae_tiny_cases", "t13.std", "vae_tiny t13 std", VAE_FILES),
        ("vae_tiny_t5_intermediates", "decoder.mid_block", "vae_tiny t5 decoder.mid_block", VAE_FILES),
        ("colorfix", "wavelet", "colour wavelet", []),
        ("pipe_tiny", "resized", "pipe_tiny resized", ["pipe_cases.json"]),
    ],
)  # fmt: skip
def test_one_perturbed_number_fails_its_case_alone(
    file: str,
    key: str,
    case: str,
    others: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy(tmp_path, [*others, f"{file}.safetensors"])

    def edit(tensors: dict[str, Tensor]) -> None:
        flat = tensors[key].flatten()
        flat[len(flat) // 2] += 1e-2 * flat.square().sum().sqrt()
        tensors[key] = flat.view_as(tensors[key])

    edit_tensors(tmp_path / f"{file}.safetensors", edit)
    code, cases = run(tmp_path, capsys)
    assert code == 1 and failures(cases) == {case}
    assert cases[case][1] == pytest.approx(1e-2, rel=1e-2)


def test_a_nan_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(tmp_path, ["colorfix.safetensors"])

    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["adain"].view(-1)[0] = float("nan")

    edit_tensors(tmp_path / "colorfix.safetensors", edit)
    assert failures(run(tmp_path, capsys)[1]) == {"colour adain"}


def test_a_wrong_shape_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(tmp_path, GENERATOR_FILES)
    edit_tensors(
        tmp_path / "dit_v2_tiny_out.safetensors", lambda t: t.update({"img.out": t["img.out"][1:]})
    )
    code, cases = run(tmp_path, capsys)
    assert code == 1 and cases["generator v2_tiny img out"] == ("FAIL", float("inf"))


def test_an_unknown_intermediate_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(tmp_path, [*GENERATOR_FILES, *VAE_FILES])
    inside = {"block0.nonsense.vid": torch.zeros(1), "block9.txt": torch.zeros(1)}
    save_file(inside, tmp_path / "dit_v2_tiny_img_intermediates.safetensors")
    save_file(
        {"decoder.middle": torch.zeros(1)}, tmp_path / "vae_tiny_img_intermediates.safetensors"
    )
    names = {"generator v2_tiny img block0.nonsense.vid", "generator v2_tiny img block9.txt",
             "vae_tiny img decoder.middle"}  # fmt: skip
    assert failures(run(tmp_path, capsys)[1]) == {f"{name}: no such layer" for name in names}


def test_wrong_keys_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(tmp_path, ["keys_3b.json", "keys_vae.json"])

    def edit(listed: Any) -> None:
        listed["keys"]["blocks.31.ada.txt.mlp_gate"] = [2560]
        listed["keys"]["txt_in.bias"] = [2561]
        del listed["keys"]["vid_in.proj.bias"]

    edit_json(tmp_path / "keys_3b.json", edit)
    code, cases = run(tmp_path, capsys)
    assert code == 1
    assert cases == {"keys_3b: 635 keys": ("FAIL", 3), "keys_vae: 250 keys": ("ok", 0)}


@pytest.mark.parametrize(
    ("edit", "wrong"),
    [
        (lambda windows: windows.reverse(), 9),
        (lambda windows: windows.pop(), 1),
        (lambda windows: windows[0][2].__setitem__(1, 26), 1),
    ],
)
def test_wrong_windows_fail(
    edit: Callable[[Any], None], wrong: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(tmp_path, ["windows.json"])
    edit_json(
        tmp_path / "windows.json",
        lambda listed: edit(listed["cases"][0]["720pwin_by_size_bysize"]),
    )
    code, cases = run(tmp_path, capsys)
    failed = failures(cases)
    assert code == 1 and failed == {"windows 1x45x80 plain: 9"}
    assert wrong - 1 <= cases["windows 1x45x80 plain: 9"][1] <= wrong


@pytest.mark.parametrize("name", FILES)
def test_a_file_alone(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(tmp_path, [name])
    if name in ALONE or name.startswith("pipe_") and name.endswith("json"):
        assert run(tmp_path, capsys)[0] == 0
    else:  # nothing to compare it with
        with pytest.raises(UsageError, match="none of the golden files"):
            check(tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_any_part_of_the_folder(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(seed)
    copy(tmp_path, ["windows.json", *chance.sample(FILES, chance.randint(8, 24))])
    assert run(tmp_path, capsys)[0] == 0


@pytest.mark.parametrize("missing", ["vae_cases.json", "dit_v2_tiny_weights.safetensors"])
def test_a_pipeline_without_its_networks_keeps_its_pixels(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(tmp_path, [name for name in FILES if name != missing])
    cases = run(tmp_path, capsys)[1]
    pipe = {name for name in cases if name.startswith("pipe_tiny")}
    assert pipe == {"pipe_tiny resized", "pipe_tiny vae_in"}


def drop_negative(tensors: dict[str, Tensor]) -> None:
    del tensors["txt_neg"]


def test_a_pipeline_without_a_negative_prompt_runs_what_it_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(tmp_path, FILES)
    edit_tensors(tmp_path / "pipe_tiny.safetensors", drop_negative)
    cases = run(tmp_path, capsys)[1]
    assert "pipe_tiny cns0.1.x0" in cases
    assert "pipe_tiny ms4_cfg6.5.decoded_cthw" not in cases


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("windows.json", b'{"cases": [{"size": [1, 2'),
        ("windows.json", b"\xff\xfe\x00"),
        ("windows.json", b"[1, 2]"),
        ("windows.json", b"{}"),
        ("keys_3b.json", b'{"params": {}, "keys": {}}'),
        ("keys_3b.json", b'{"params": {"vid_dim": 8, "num_layers": 1, "head_dim": 8}}'),
        ("dit_cases.json", b'{"configs": {"v2_tiny": {}}}'),
        ("pipe_cases.json", b'{"dit": "v2_tiny"}'),
        ("colorfix.safetensors", b""),
        ("colorfix.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"),
        ("dit_v2_tiny_weights.safetensors", (GOLDEN / "dit_v2_tiny_weights.safetensors").read_bytes()[:-9]),
        ("dit_v2_tiny_weights.safetensors", (GOLDEN / "dit_v1_tiny_weights.safetensors").read_bytes()),
        ("dit_input_img.safetensors", (GOLDEN / "vae_tiny_cases.safetensors").read_bytes()),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    copy(tmp_path, [*GENERATOR_FILES, "pipe_tiny.safetensors"])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        check(tmp_path)
    message = str(caught.value)
    assert name in message and "\n" not in message


def test_command_speaks_one_line_of_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, damaged = tmp_path / "empty", tmp_path / "damaged"
    for folder in (empty, damaged):
        folder.mkdir()
    (damaged / "windows.json").write_text("no")
    for folder in (empty, damaged, tmp_path / "nowhere"):
        monkeypatch.setattr(sys, "argv", ["parity", str(folder)])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        assert caught.value.code == 2
        assert said.err.startswith("error: ") and said.err.count("\n") == 1
        assert not said.out


@pytest.fixture(scope="module")
def golden_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_golden_like(tmp_path_factory.mktemp("golden_like"))


def test_another_folder_runs_whole(golden_like: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, cases = run(golden_like, capsys)
    assert code == 0, failures(cases)
    wanted = {f"generator {name} {case}.{name} out" for name in GENERATORS
              for case in ("dot", "some clip", "strip")}  # fmt: skip
    wanted |= {f"generator {name} {case}.{name} {key}" for name in GENERATORS
               for case in ("dot", "some clip") for key in ("txt_in", "emb_in")}  # fmt: skip
    wanted |= {f"{name} {case} {key}" for name in ("vae_one", "vae_other.set")
               for case in ("picture", "nine") for key in ("moments", "mean", "logvar", "dec")}  # fmt: skip
    wanted |= {f"pipe_mine {name}" for name in ("latent", "cns0.0.x0", "cns0.3.cond",
               "cns0.3.decoded_cthw", "ms3_cfg2.0.decoded_cthw")}  # fmt: skip
    assert wanted - cases.keys() == set()
    assert {name.split()[1] for name in cases if name.startswith("windows")} == {
        "1x1x1", "11x47x3", "3x90x91"}  # fmt: skip
    assert not any("bf16" in name for name in cases)


def test_relative_rms_is_of_the_expected() -> None:
    ours, theirs = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert relative_rms(ours, theirs) == pytest.approx((4 / 12.5) ** 0.5)
    assert relative_rms(ours, torch.zeros(2)) == pytest.approx(2.5**0.5)
    assert relative_rms(ours, theirs[None]) == float("inf")
    assert relative_rms(theirs, theirs) == 0
