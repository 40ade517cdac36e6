"""Reading ahead: the files, what is in memory already, and when it stops."""

import os
import threading

import pytest

from entrypoint.engine import memory, prefetch
from entrypoint.engine.strategy import LoadPlan

WINDOW = 2**20


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    monkeypatch.setattr(prefetch, "_WINDOW", WINDOW)
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    for number, size in ((2, WINDOW + 5), (1, 3 * WINDOW)):
        blob = blobs / str(number)
        blob.write_bytes(bytes(size))
        with blob.open("rb") as file:
            os.fsync(file.fileno())
        (folder / f"model-0000{number}-of-00002.safetensors").symlink_to(blob)
    (folder / "config.json").write_text("{}")
    return folder


def evict(folder):
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(files, *, reads=True, threads=2, limit=2**40, available=lambda: 2**40, pressure=lambda: 0.0, clock=None):
    said = []
    plan = LoadPlan(True, "", threads, reads, limit)
    extra = {} if clock is None else {"clock": clock}
    ahead = prefetch.Prefetch(files, plan, tell=said.append, available=available, pressure=pressure, **extra)
    ahead.join(30)
    return ahead, said


def test_the_files_are_those_that_are_loaded_in_their_order(snapshot):
    found = prefetch.files_of(snapshot)
    assert [f.size for f in found] == [3 * WINDOW, WINDOW + 5]
    assert prefetch.files_of(snapshot / "none") == ()


def test_the_filesystem_is_the_one_of_the_file(tmp_path):
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 0:1 / / rw - overlay overlay rw\n"
        f"2 1 {os.major(device)}:{os.minor(device)} /x /y rw,relatime shared:3 - nfs4 server:/x rw\n"
    )
    assert prefetch.filesystem_of(tmp_path, mounts) == "nfs4"
    assert prefetch.filesystem_of(tmp_path, tmp_path / "none") == "unknown"


def test_reading_brings_files_into_memory(snapshot):
    files = prefetch.files_of(snapshot)
    evict(snapshot)
    before = prefetch.resident(files)
    if before is None or before > 0.5:
        pytest.skip("this filesystem keeps its pages, or does not tell")
    ahead, said = run(files)
    assert prefetch.resident(files) == 1.0
    assert ahead.bytes == sum(f.size for f in files)
    assert len(said) == 1 and said[0].startswith("read 0.0 GB ahead") and "stopped" not in said[0]


def test_asking_the_kernel_goes_through_all_files(snapshot):
    files = prefetch.files_of(snapshot)
    ahead, said = run(files, reads=False)
    assert ahead.bytes == sum(f.size for f in files)
    assert said[0].startswith("asked for")


def test_no_more_than_fits_is_read(snapshot):
    ahead, _ = run(prefetch.files_of(snapshot), limit=WINDOW + 7)
    assert ahead.bytes == WINDOW + 7


@pytest.mark.parametrize(
    ("free", "waiting", "why"), [(2**20, 0.0, "of memory are left"), (2**40, 35.0, "wait for memory 35 % of the time")]
)
def test_it_stops_when_memory_runs_short(snapshot, free, waiting, why):
    frees = iter([2**40])
    ticks = iter(range(10**6))
    ahead, said = run(
        prefetch.files_of(snapshot),
        threads=1,
        available=lambda: next(frees, free),
        pressure=lambda: waiting,
        clock=lambda: next(ticks),
    )
    assert ahead.bytes < 4 * WINDOW
    assert why in said[0]


def test_it_stops_when_it_is_told_to(snapshot):
    held = threading.Event()
    said = []

    def available():
        held.wait(30)
        return 2**40

    held.set()
    plan = LoadPlan(True, "", 1, True, 2**40)
    ticks = iter(range(10**6))
    ahead = prefetch.Prefetch(
        prefetch.files_of(snapshot), plan, tell=said.append, available=available, clock=lambda: next(ticks)
    )
    held.clear()
    ahead.close("the weights are loaded")
    held.set()
    ahead.join(30)
    assert "stopped: the weights are loaded" in said[0] or ahead.bytes == 4 * WINDOW + 5


def test_a_file_that_cannot_be_read_ends_it_and_nothing_else(snapshot):
    files = prefetch.files_of(snapshot)
    for path in snapshot.glob("*.safetensors"):
        path.unlink()
    _, said = run(files)
    assert "No such file" in said[0]
    assert prefetch.resident(files) is None


def group(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_memory_is_that_of_the_control_group(tmp_path):
    meminfo, nowhere = tmp_path / "meminfo", tmp_path / "none"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")

    def available(root, membership=nowhere):
        return memory.available(root, meminfo, membership)

    assert available(tmp_path) == 50 * 1024, "no group has a limit"
    second = group(
        tmp_path / "2",
        memory_DOT_max="40000\n",
        memory_DOT_current="30000\n",
        memory_DOT_stat="anon 1\ninactive_file 5000\nactive_file 2000\nshmem 9\n",
    )
    assert available(second) == 17000
    first = {
        "memory_DOT_limit_in_bytes": "40000\n",
        "memory_DOT_usage_in_bytes": "30000\n",
        "memory_DOT_stat": "inactive_file 1\ntotal_inactive_file 500\ntotal_active_file 0\n",
    }
    group(tmp_path / "1/memory", **first)
    assert available(tmp_path / "1") == 10500
    assert available(group(tmp_path / "3", memory_DOT_max="max\n")) == 50 * 1024
    membership = tmp_path / "cgroup"
    membership.write_text("4:cpu,memory:/docker/x\n2:pids:/\n0::/y\n")
    group(tmp_path / "4/memory/docker/x", **first)
    assert available(tmp_path / "4", membership) == 10500, "outside a container the group has a name"
    assert memory.available(tmp_path, nowhere, nowhere) is None


def test_pressure_is_what_the_kernel_tells(tmp_path):
    text = "some avg10=12.50 avg60=0.00 avg300=0.00 total=5\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=1\n"
    assert memory.pressure(group(tmp_path, memory_DOT_pressure=text), tmp_path / "none") == 12.5
    assert memory.pressure(tmp_path / "nowhere", tmp_path / "none") == 0.0
