"""Downloads, from a hub that runs on this machine."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.constants import HUGGINGFACE_HEADER_X_REPO_COMMIT

from vr_trt.errors import ModelError, UsageError
from vr_trt.export import weights, weights_hub
from vr_trt.export.weights_table import SHIPPED, find

COMMIT = "0123456789abcdef0123456789abcdef01234567"
POSITIVE = SHIPPED / "pos_emb.pt"  # a true file of the list, small enough to be served here


class Hub(ThreadingHTTPServer):
    """What huggingface_hub expects of a hub: HEAD and ranged GET of one repository file."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.ranges: list[str | None] = []
        self.cut_after: int | None = None  # bytes of the next answer before the line drops
        self.stall = False  # whether the line then stands still instead of dropping
        self.stalled = threading.Event()
        self.refusal: tuple[int, str] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        content = self.server.files.get(self.path, b"")
        asked = self.headers.get("Range")
        if self.path in self.server.files:  # the client asks for other things too
            self.server.ranges.append(asked)
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.answer(content[first:], first)

    def answer(self, body: bytes, first: int = 0) -> None:
        hub = self.server
        if hub.refusal or self.path not in hub.files:
            status, code = hub.refusal or (404, "RepoNotFound")
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = hub.files[self.path]
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{hub.tags.get(self.path, hashlib.md5(content).hexdigest())}"')
        self.send_header(HUGGINGFACE_HEADER_X_REPO_COMMIT, COMMIT)
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.send(body)

    def send(self, body: bytes) -> None:
        hub = self.server
        if hub.cut_after is None or not body:
            self.wfile.write(body)
            return
        cut, hub.cut_after = hub.cut_after, None
        self.close_connection = True
        with suppress(ConnectionError):  # the client was killed
            self.wfile.write(body[:cut])
            hub.stalled.wait(30 if hub.stall else 0)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield server
    server.stalled.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's caches is read or written, and the package ships no texts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VR_TRT_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "nothing shipped")


def serve(hub: Hub, name: str, content: bytes) -> str:
    """Put `content` on the hub as the file `name`; its path there."""
    file = find(name)
    path = f"/{file.repository}/resolve/main/{file.filename}"
    hub.files[path] = content
    return path


def one_line(caught: "pytest.ExceptionInfo[Exception]") -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_pull_downloads_checks_and_is_done(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "text-positive", POSITIVE.read_bytes())
    path = weights.pull("text-positive", tmp_path / "new")
    assert path == tmp_path / "new/pos_emb.pt"
    assert path.read_bytes() == POSITIVE.read_bytes()
    assert weights.pull("text-positive", tmp_path / "new") == path
    assert hub.ranges == [None], "a good copy was downloaded again"
    assert not list((tmp_path / "new").glob("*.part"))


def test_pull_replaces_a_damaged_copy(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "text-positive", POSITIVE.read_bytes())
    (tmp_path / "pos_emb.pt").write_bytes(b"damaged")
    weights.pull("text-positive", tmp_path)
    weights.verify("text-positive", tmp_path)


def test_pull_uses_what_huggingface_already_has(hub: Hub, tmp_path: Path) -> None:
    repository = tmp_path / "hf/models--ByteDance-Seed--SeedVR2-3B"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    shutil.copy(POSITIVE, snapshot)
    assert weights.pull("text-positive", tmp_path / "own") == snapshot / "pos_emb.pt"
    assert not hub.ranges


def test_a_dropped_line_continues_within_the_call(hub: Hub, tmp_path: Path) -> None:
    content = os.urandom(25_000_000)  # the client writes ten megabytes at a time
    serve(hub, "vae-fp32", content)
    hub.cut_after = 15_000_000
    assert weights.pull("vae-fp32", tmp_path).read_bytes() == content
    assert hub.ranges[0] is None and str(hub.ranges[1]).startswith("bytes=1")


def test_a_killed_download_continues_in_the_next_process(hub: Hub, tmp_path: Path) -> None:
    content = os.urandom(40_000_000)
    serve(hub, "vae-fp32", content)
    hub.cut_after, hub.stall = 25_000_000, True
    code = (
        "import sys; from pathlib import Path; from vr_trt.export import weights;"
        "weights.pull('vae-fp32', Path(sys.argv[1]))"
    )
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _partial(tmp_path) < 10_000_000:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = _partial(tmp_path)
    assert kept >= 10_000_000
    assert weights.pull("vae-fp32", tmp_path).read_bytes() == content
    assert hub.ranges == [None, f"bytes={kept}-"]


def _partial(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.part"))


def test_parts_of_another_version_are_not_continued(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "vae-fp32", b"new" * 1000)
    (tmp_path / "ema_vae.pth.0123.part").write_bytes(b"old" * 10)
    assert weights.pull("vae-fp32", tmp_path).read_bytes() == b"new" * 1000
    assert hub.ranges == [None] and _partial(tmp_path) == 0


def test_wrong_content_is_refused_and_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "text-positive", b"something else")
    with pytest.raises(ModelError, match="damaged or another file") as caught:
        weights.pull("text-positive", tmp_path)
    one_line(caught)
    assert not (tmp_path / "pos_emb.pt").exists() and _partial(tmp_path) == 0


def test_another_version_on_the_hub_is_refused_before_the_download(
    hub: Hub, tmp_path: Path
) -> None:
    path = serve(hub, "text-positive", b"something else")
    hub.tags[path] = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ModelError, match="hub now serves another"):
        weights.pull("text-positive", tmp_path)
    assert not hub.ranges


def test_damage_on_the_way_is_found_even_where_no_hash_is_published(
    hub: Hub, tmp_path: Path
) -> None:
    path = serve(hub, "vae-fp32", b"damaged on the way")
    hub.tags[path] = hashlib.sha256(b"as it was published").hexdigest()
    with pytest.raises(ModelError, match="arrived damaged.*weights pull vae-fp32") as caught:
        weights.pull("vae-fp32", tmp_path)
    one_line(caught)
    assert _partial(tmp_path) == 0
    hub.files[path] = b"as it was published"
    weights.pull("vae-fp32", tmp_path)  # nothing wrong was recorded


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((403, "GatedRepo"), "is gated.*hf auth login"),
        ((404, "RepoNotFound"), "The hub has no numz/SeedVR2_comfyUI/ema_vae_fp16.safetensors"),
        ((404, "EntryNotFound"), "The hub has no"),
        ((500, ""), "failed.*check the network.*continues where it stopped"),
    ],
)
def test_refusals_of_the_hub_are_one_line(
    refusal: tuple[int, str], words: str, hub: Hub, tmp_path: Path
) -> None:
    hub.refusal = refusal
    with pytest.raises(ModelError, match=words) as caught:
        weights.pull("vae-fp16", tmp_path)
    one_line(caught)


def test_no_hub_at_all_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ModelError, match="failed.*check the network") as caught:
        weights.pull("vae-fp16", tmp_path)
    one_line(caught)


def test_a_disk_too_small_is_refused_before_the_download(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(hub, "vae-fp32", bytes(5000))
    usage = shutil.disk_usage(tmp_path)._replace(free=4000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UsageError, match="is full.*VR_TRT_WEIGHTS") as caught:
        weights.pull("vae-fp32", tmp_path)
    one_line(caught)
    assert not hub.ranges


def test_a_disk_that_fills_is_one_line(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    serve(hub, "vae-fp32", b"x")
    monkeypatch.setattr(weights_hub, "_settle", full)
    with pytest.raises(UsageError, match="is full") as caught:
        weights.pull("vae-fp32", tmp_path)
    one_line(caught)


def test_a_folder_that_is_a_file_is_one_line(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written") as caught:
        weights.pull("vae-fp32", tmp_path / "file")
    one_line(caught)


def test_two_downloads_of_one_file_do_not_mix(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "vae-fp32", b"x")
    with (
        weights_hub._alone(find("vae-fp32"), tmp_path),
        pytest.raises(UsageError, match="Another process"),
    ):
        weights.pull("vae-fp32", tmp_path)
