"""Actors of a Ray cluster that is started here; skipped where Ray is not installed."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers import Copy, NoServer, Square, Squares, results
from tests.spreading import command, run, segments, wait_for_none

from vr_trt.errors import ModelError, UsageError
from vr_trt.runtime.ray_pool import RayCluster, RayPool
from vr_trt.runtime.workers import RemoteServer, Said

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_pictures")]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), before])  # workers find tests.servers
    cluster = RayCluster("local", 2, 1)
    yield cluster
    cluster.close()
    os.environ["PYTHONPATH"] = before


def pool(server: RemoteServer) -> RayPool:
    """Two actors of a core each."""
    return RayPool(server, 2, cores=1, gpus=0)


def test_tasks_go_to_actors_and_come_back(cluster: RayCluster, tmp_path: Path) -> None:
    """One of them kills its actor."""
    assert cluster.cores == [2] and cluster.gpus == 0
    tasks = [Square(n, str(tmp_path / "killed") if n == 5 else "") for n in range(9)]
    found, said, schedule = results(pool(Squares()), tasks)
    assert found == {n: n * n for n in range(9)}
    assert Said("half of 7") in said
    assert len(schedule.warnings) == 1 and "of Ray" in schedule.warnings[0]


def test_errors_come_back_as_they_are(cluster: RayCluster) -> None:
    with pytest.raises(ModelError, match="thirteen"):
        results(pool(Squares()), [Square(13)])
    with pytest.raises(ModelError, match="no such network"):
        results(pool(NoServer()), [Square(1)])


def test_a_file_that_is_not_there_is_sent(cluster: RayCluster, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(bytes(70 << 20))
    found, _, _ = results(pool(Copy(source)), [Square(0)])
    assert found == {0: 70 << 20}


RAY = ("--cluster", "local", "--workers", "2")


def test_the_file_is_that_of_one_worker(
    film: Path, model: str, tmp_path: Path, whole: bytes
) -> None:
    output = tmp_path / "out.mp4"
    done = run(film, model, output, *RAY)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def wait_for_segments(folder: Path, count: int) -> None:
    until = time.perf_counter() + 120
    while segments(folder / "out.mp4") < count:
        assert time.perf_counter() < until
        time.sleep(0.01)


def actors() -> list[int]:
    """Processes of this project's actors."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::_Actor" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_an_actor_is_killed(film: Path, model: str, tmp_path: Path, whole: bytes) -> None:
    output = tmp_path / "out.mp4"
    process = subprocess.Popen(
        command(film, model, output, *RAY), stderr=subprocess.PIPE, text=True
    )
    wait_for_segments(tmp_path, 2)
    os.kill(actors()[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.read_bytes() == whole


def test_the_run_is_killed_and_goes_on_without_ray(
    film: Path, model: str, tmp_path: Path, whole: bytes
) -> None:
    """And nothing of the cluster that it started stays."""
    output = tmp_path / "out.mp4"
    process = subprocess.Popen(command(film, model, output, *RAY), stderr=subprocess.DEVNULL)
    wait_for_segments(tmp_path, 2)
    left = actors()
    process.kill()
    process.wait()
    assert left and not wait_for_none(left, 30)
    done = run(film, model, output, "--resume", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == whole


def test_a_machine_of_a_cluster_goes_away(
    film: Path, model: str, tmp_path: Path, whole: bytes
) -> None:
    """Two nodes, here on one machine; each has a worker, and one node is taken out."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        other = nodes.add_node(num_cpus=1)
        output = tmp_path / "out.mp4"
        process = subprocess.Popen(
            command(film, model, output, "--cluster", nodes.address),
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_segments(tmp_path, 1)
        assert len(actors()) == 2
        nodes.remove_node(other, allow_graceful=False)
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        assert output.read_bytes() == whole
        assert "of Ray" in errors
    finally:
        nodes.shutdown()


def test_ctrl_c(film: Path, model: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(film, model, tmp_path / "out.mp4", *RAY), stderr=subprocess.PIPE, text=True
    )
    wait_for_segments(tmp_path, 1)
    left = actors()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume goes on" in errors.splitlines()[-1]
    assert left and not wait_for_none(left, 30)


def test_no_cluster_there_is_a_line(film: Path, model: str, tmp_path: Path) -> None:
    for address, reason in (("ray://x:1", "Ray's client"), ("127.0.0.1:1", "no Ray cluster")):
        done = run(film, model, tmp_path / "out.mp4", "--cluster", address)
        assert done.returncode == UsageError.exit_code, done.stderr
        assert reason in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
