"""The lab's own parts that need neither root nor Docker: where it runs, how it starts and stops, what CDI says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.lab import command, control, debian, gpus, steps
from tests.lib.lab.paths import Paths
from tests.lib.nvml import profiles


def paths_in(folder: Path) -> Paths:
    paths = Paths(folder / "lab")
    paths.make()
    return paths


# Where it cannot run


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert command.main(["up"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "lab: the lab starts a Docker Engine and needs root. To fix it: run it as root or with sudo.\n"
    )


def test_without_apt_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nowhere")
    reason = debian.reason_why_not()
    assert reason is not None
    assert "apt-get" in reason


def test_on_another_system_it_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    fedora = {"ID": "fedora", "VERSION_CODENAME": "", "PRETTY_NAME": "Fedora Linux 43"}
    monkeypatch.setattr(debian, "os_release", lambda: fedora)
    reason = debian.reason_why_not()
    assert reason is not None
    assert "Fedora Linux 43" in reason


def test_an_unknown_part_or_profile_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        command.main(["up", "--only", "engine,fridge"])
    assert "fridge: the parts are engine, base, registry, gpus, containerd-store" in capsys.readouterr().err
    with pytest.raises(steps.LabError, match="no host profile is called 3xV100"):
        gpus.switch(paths_in(tmp_path), "3xV100")


def test_down_where_nothing_is_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    control.down(Paths(tmp_path / "lab"))
    assert "nothing is there" in capsys.readouterr().err


def test_status_where_nothing_is_knows_nothing(tmp_path: Path) -> None:
    assert set(control.status(Paths(tmp_path / "lab")).values()) == {None}


# Sources of the machine


def test_only_debian_sources_of_this_suite_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = (
        "http://mirror.example/debian/|bookworm-updates|main|/k.gpg\n"
        "http://mirror.example/debian/|bookworm|main|/k.gpg\n"
        "http://mirror.example/debian/|bookworm|contrib|/k.gpg\n"
        "https://other.example/apt/|cloud-sdk-bookworm|main|\n"
        "http://mirror.example/security/|bookworm-security|main|/k.gpg\n"
    )
    monkeypatch.setattr(debian, "run", lambda argv: listing)
    monkeypatch.setattr(debian, "codename", lambda: "bookworm")
    assert [(s.uri, s.suite) for s in debian.sources()] == [
        ("http://mirror.example/debian/", "bookworm"),
        ("http://mirror.example/debian/", "bookworm-updates"),
        ("http://mirror.example/security/", "bookworm-security"),
    ]


def test_a_machine_without_debian_sources_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "run", lambda argv: "")
    monkeypatch.setattr(debian, "codename", lambda: "bookworm")
    with pytest.raises(steps.LabError, match="no source for the suite bookworm"):
        debian.sources()


@pytest.mark.parametrize("works", [True, False])
def test_packages_are_replaced_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, works: bool
) -> None:
    """An engine may run from what is there."""
    paths = paths_in(tmp_path)
    (paths.unpacked / "dockerd").write_text("old")

    def run(argv: list[object], **_: object) -> str:
        if argv[0] == "sh":
            Path(str(argv[3]), "docker.deb").touch()
        elif not works:
            raise steps.LabError("the archive is damaged", "download it again")
        else:
            Path(str(argv[3]), "dockerd").write_text("new")
        return ""

    monkeypatch.setattr(debian, "run", run)
    monkeypatch.setattr(debian, "_private_apt", lambda paths: {})
    monkeypatch.setattr(debian, "_update", lambda env: None)
    if works:
        debian.unpack_packages(paths)
    else:
        with pytest.raises(steps.LabError, match="damaged"):
            debian.unpack_packages(paths)
    assert (paths.unpacked / "dockerd").read_text() == ("new" if works else "old")
    assert sorted(path.name for path in tmp_path.glob("lab/root*")) == (["root"] if works else ["root", "root.new"])


# Processes


def start(folder: Path, script: str) -> Path:
    pid_file = folder / "child.pid"
    argv = [sys.executable, "-c", script]
    steps.start_daemon(argv, env=os.environ, pid_file=pid_file, log=folder / "child.log")
    return pid_file


def test_a_daemon_is_found_again_and_stopped_by_its_id(tmp_path: Path) -> None:
    pid_file = start(tmp_path, "import time; time.sleep(600)")
    pid = steps.running_pid(pid_file)
    assert pid is not None
    assert steps.stop_daemon(pid_file)
    assert not Path(f"/proc/{pid}").exists()
    assert not steps.stop_daemon(pid_file)


def test_a_daemon_holds_no_lock_of_its_callers(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)  # as `flock FILE COMMAND` hands it on
        pid_file = start(tmp_path, "import time; time.sleep(600)")
        pid = steps.running_pid(pid_file)
        held = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        assert steps.stop_daemon(pid_file)
    assert not [path for path in held if path.endswith("/lock")]


def test_a_daemon_that_ignores_term_is_killed(tmp_path: Path) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); open('deaf', 'w').close(); time.sleep(600)"
    pid_file = start(tmp_path, f"import os; os.chdir({str(tmp_path)!r}); {script}")
    steps.wait_until((tmp_path / "deaf").exists, what="it", seconds=30, log=tmp_path / "child.log", alive=lambda: True)
    pid = steps.running_pid(pid_file)
    assert steps.stop_daemon(pid_file, seconds=0.2)
    assert not Path(f"/proc/{pid}").exists()


def test_another_process_with_the_same_id_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        pid_file = tmp_path / "old.pid"
        pid_file.write_text(f"{other.pid} 1\n")  # started at another time
        assert steps.running_pid(pid_file) is None
        assert not steps.stop_daemon(pid_file)
        assert other.poll() is None
        other.kill()


def test_a_daemon_that_dies_at_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    pid_file = start(tmp_path, "raise SystemExit('no room in the boot sector')")
    with pytest.raises(steps.LabError, match="ended while starting: no room in the boot sector"):
        steps.wait_until(
            lambda: False,
            what="the daemon",
            seconds=30,
            log=tmp_path / "child.log",
            alive=lambda: steps.running_pid(pid_file) is not None,
        )


def test_a_failing_command_becomes_one_sentence() -> None:
    with pytest.raises(steps.LabError, match=r"`sh -c .*` failed: out of cheese"):
        steps.run(["sh", "-c", "echo out of cheese >&2; exit 3"])
    with pytest.raises(steps.LabError, match="`no-such-command` is not there"):
        steps.run(["no-such-command"])


# What containers are told


def spec_of(profile: str) -> dict[str, object]:
    return gpus.cdi_spec(Path("/double"), Path("/profile"), profiles.profile(profile))


def test_cdi_has_every_gpu_by_number_and_uuid_and_all() -> None:
    spec = json.loads(json.dumps(spec_of("2xH200")))
    uuids = [gpu["uuid"] for gpu in profiles.profile("2xH200")["gpus"]]
    assert spec["kind"] == "nvidia.com/gpu"
    nodes = {d["name"]: [n["path"] for n in d["containerEdits"]["deviceNodes"]] for d in spec["devices"]}
    assert nodes == {
        "0": ["/dev/nvidia0"],
        uuids[0]: ["/dev/nvidia0"],
        "1": ["/dev/nvidia1"],
        uuids[1]: ["/dev/nvidia1"],
        "all": ["/dev/nvidia0", "/dev/nvidia1"],
    }


def test_cdi_gives_the_library_its_description_and_no_real_device() -> None:
    spec = json.loads(json.dumps(spec_of("8xB200")))
    edits = spec["containerEdits"]
    mounts = {m["containerPath"]: m["hostPath"] for m in edits["mounts"]}
    library = next(path for path in mounts if path.endswith("/libnvidia-ml.so.1"))
    assert mounts[library] == "/double/libnvidia-ml.so.1"
    assert mounts[f"{library}.json"] == "/profile/container.json"
    assert all("ro" in m["options"] for m in edits["mounts"])
    nodes = [*edits["deviceNodes"], *(n for d in spec["devices"] for n in d["containerEdits"]["deviceNodes"])]
    assert {n["hostPath"] for n in nodes} == {"/dev/null"}


def test_a_profile_shows_containers_only_gpus_with_a_node(tmp_path: Path) -> None:
    folder = gpus.write_profile(paths_in(tmp_path), "2xH100")
    host, container = (json.loads((folder / name).read_text()) for name in ("host.json", "container.json"))
    assert container == host | {"visible_by_device_nodes": True}
    assert "visible_by_device_nodes" not in host


def test_every_listed_profile_exists() -> None:
    for name in profiles.names():
        assert profiles.profile(name)["gpus"], name
    for wrong in ("0xH200", "8xV100", "H200", "8", "1025xH200", ""):
        with pytest.raises(KeyError):
            profiles.profile(wrong)
