"""A Docker daemon that is missing, mute, broken, old or forbidden: each is told apart, and nobody waits for it."""

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.facts import DockerFacts
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.plain import from_plain, to_plain
from nimctl.launch.docker import DockerRuntime, Engine, describe_daemon
from nimctl.launch.docker.pull import PullPlan
from tests.lib.users import as_user, needs_root, open_folder

VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}
INFO = {"Driver": "overlay2", "DockerRootDir": "/d", "Runtimes": {"runc": {}}, "SecurityOptions": ["name=rootless"]}

Behaviour = Callable[[socket.socket, str], None]


def answer(connection: socket.socket, status: str, body: object) -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + data)


@contextmanager
def daemon(folder: Path, monkeypatch: pytest.MonkeyPatch, behave: Behaviour) -> Iterator[Path]:
    """A daemon on a Unix socket that does this with every request; DOCKER_HOST points at it."""
    path = folder / "d.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(16)
    open_now: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_now.append(connection)
            thread = threading.Thread(target=talk, args=(connection,))
            threads.append(thread)
            thread.start()

    def talk(connection: socket.socket) -> None:
        with suppress(OSError):
            request = connection.recv(65536).decode(errors="replace")
            if request:
                behave(connection, request.split(" ")[1])
                connection.close()

    server = threading.Thread(target=serve)
    server.start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    try:
        yield path
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_now:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in (server, *threads):
            thread.join(10)


def error_of(timeout: float = 20.0) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        Engine.connect(timeout)
    return caught.value


def test_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    facts = describe_daemon(20.0)
    assert (facts.state, facts.endpoint) == ("missing", f"unix://{tmp_path}/no.sock")
    error = error_of()
    assert (error.id, error.exit_code) == ("docker-missing", 3)
    assert f"unix://{tmp_path}/no.sock" in error.evidence and "--runtime process" in error.fix


def test_a_socket_that_nobody_listens_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "d.sock"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/d.sock")
    assert describe_daemon(20.0).state == "unreachable"
    assert error_of().id == "docker-unreachable"


@needs_root
def test_a_socket_that_this_user_may_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_folder() as folder, daemon(folder, monkeypatch, lambda c, _: answer(c, "200 OK", VERSION)) as path:
        path.chmod(0o600)
        state, fix = as_user(forbidden_view)
    assert state == "permission"
    assert "usermod -aG docker" in fix


def forbidden_view() -> tuple[str, str]:
    return describe_daemon(20.0).state, error_of().fix


def test_a_daemon_that_accepts_and_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()
    end = threading.Event()

    def mute(_connection: socket.socket, _path: str) -> None:
        asked.set()
        end.wait(30)

    with daemon(tmp_path, monkeypatch, mute):
        facts = describe_daemon(0.5)
        error = error_of(0.5)
        end.set()
    assert asked.is_set()
    assert facts.state == "hangs"
    assert error.id == "docker-hangs"


def test_a_daemon_that_drips_is_bounded_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read gets its byte in time, so only a limit on the whole can end it."""
    end = threading.Event()

    def drip(connection: socket.socket, _path: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not end.wait(0.05):
            connection.sendall(b" ")

    with daemon(tmp_path, monkeypatch, drip):
        facts = describe_daemon(0.5)
        end.set()
    assert facts.state == "hangs"


@pytest.mark.parametrize("status", ["500 Internal Server Error", "404 Not Found", "400 Bad Request"])
def test_a_daemon_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    with daemon(tmp_path, monkeypatch, lambda c, _: answer(c, status, {"message": "the store is broken"})):
        facts = describe_daemon(20.0)
        error = error_of()
    assert facts.state == "unreachable"
    assert facts.detail is not None and "the store is broken" in facts.detail
    assert error.id == "docker-unreachable"


@pytest.mark.parametrize(
    "noise", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"\x00" * 100]
)
def test_something_that_is_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: bytes) -> None:
    with daemon(tmp_path, monkeypatch, lambda c, _: c.sendall(noise)):
        assert describe_daemon(20.0).state == "unreachable"


def old_daemon(connection: socket.socket, path: str) -> None:
    if path.endswith("/version"):
        answer(connection, "200 OK", VERSION)
    elif path.endswith("/info"):
        answer(connection, "200 OK", INFO)
    else:
        answer(connection, "404 Not Found", {"message": "page not found"})


def test_an_old_daemon_is_described_and_its_age_left_to_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with daemon(tmp_path, monkeypatch, old_daemon):
        facts = describe_daemon(20.0)
    assert facts == DockerFacts(
        "ok",
        endpoint=f"unix://{tmp_path}/d.sock",
        version="20.10.24",
        api_version="1.41",
        rootless=True,
        storage_driver="overlay2",
        data_root="/d",
        runtimes=("runc",),
        security_options=("name=rootless",),
    )
    assert (facts.cdi_spec_dirs, facts.kind, facts.containers) == (None, None, None)


@pytest.mark.parametrize("odd", [29, 29.5, ["29"], {"x": 1}, None, True, ""])
def test_answers_of_the_wrong_kind_become_facts_that_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: object
) -> None:
    strange = [odd, "x", None, {}]
    version: dict[str, object] = {"Version": odd, "ApiVersion": "1.41", "Components": strange, "Platform": odd}
    info = dict.fromkeys(
        ["Driver", "DriverStatus", "DockerRootDir", "Runtimes", "DefaultRuntime", "CDISpecDirs", "DiscoveredDevices",
         "CgroupDriver", "CgroupVersion", "SecurityOptions", "Architecture", "OperatingSystem", "LiveRestoreEnabled",
         "PidsLimit", "HttpProxy"],
        odd,
    )  # fmt: skip
    inspected = {"Config": {"Image": 3}}
    with daemon(tmp_path, monkeypatch, engine(version, info, lambda c, _: answer(c, "200 OK", inspected))):
        facts = describe_daemon(20.0)
    assert facts.state == "ok"
    assert from_plain(DockerFacts, json.loads(json.dumps(to_plain(facts)))) == facts


def test_the_doctor_starts_no_program_to_describe_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 60\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with daemon(tmp_path, monkeypatch, old_daemon):
        assert describe_daemon(20.0).state == "ok"
    assert not (tmp_path / "started").exists()


def test_a_machine_over_ssh_is_not_said_to_need_a_python_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://nobody@127.0.0.9")
    facts = describe_daemon(20.0)
    assert (facts.state, facts.endpoint) == ("unreachable", "ssh://nobody@127.0.0.9")
    error = error_of()
    assert error.id == "docker-unreachable"
    assert "pip" not in str(facts.detail) and "Install paramiko" not in str(facts.detail)
    assert error.fix.startswith("Run nimctl on that machine")


CANARY = "nvapi-CANARY0123456789abcdef"
CONTAINER = {
    "Id": "c" * 64,
    "Name": "/chat",
    "Config": {"Image": "vllm/vllm-openai:v0.15.0", "Env": [f"NGC_API_KEY={CANARY}"]},
    "HostConfig": {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]},
}


def engine(version: object, info: object, inspect: Behaviour | None = None) -> Behaviour:
    """A daemon with one running container."""

    def behave(connection: socket.socket, path: str) -> None:
        if path.endswith("/version"):
            answer(connection, "200 OK", version)
        elif path.endswith("/info"):
            answer(connection, "200 OK", info)
        elif "/containers/json" in path:
            answer(connection, "200 OK", [{"Id": CONTAINER["Id"], "Names": ["/chat"], "Image": "x"}])
        elif inspect is not None:
            inspect(connection, path)
        else:
            answer(connection, "200 OK", CONTAINER)

    return behave


def components(*names: str, platform: str = "") -> dict[str, object]:
    parts = [{"Name": name, "Version": "1.2.3"} for name in names]
    return {**VERSION, "ApiVersion": "1.45", "Platform": {"Name": platform}, "Components": parts}


ENGINE = components("Engine", "containerd", "runc", "docker-init", platform="Docker Engine - Community")


def test_everything_that_a_new_engine_says_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = {
        "Driver": "overlayfs",
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
        "DockerRootDir": "/var/lib/docker",
        "Runtimes": {"nvidia": {"path": "/gone/nvidia-container-runtime"}, "runc": {"path": "runc"}, "odd": None},
        "DefaultRuntime": "runc",
        "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
        "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}, {"Source": "other", "ID": "x"}],
        "CgroupDriver": "systemd",
        "CgroupVersion": "2",
        "LiveRestoreEnabled": True,
        "PidsLimit": True,
        "HttpProxy": "",
        "HttpsProxy": f"http://u:{CANARY}@proxy:1",
        "SecurityOptions": None,
    }
    with daemon(tmp_path, monkeypatch, engine(ENGINE, info)):
        facts = describe_daemon(20.0)
        alone = describe_daemon(20.0, containers=False)
    assert (facts.kind, facts.runc, facts.containerd, facts.containerd_store) == ("engine", "1.2.3", "1.2.3", True)
    assert facts.runtime_paths == {"nvidia": "/gone/nvidia-container-runtime", "runc": "runc"}
    assert (facts.runtimes, facts.missing_runtimes) == (("nvidia", "odd", "runc"), ("nvidia",))
    assert facts.cdi_devices == ("nvidia.com/gpu=0",)
    assert (facts.cgroup_driver, facts.cgroup_version, facts.rootless) == ("systemd", "2", False)
    assert (facts.live_restore, facts.pids_limit, facts.http_proxy) == (True, True, True)
    assert facts.containers is not None
    (container,) = facts.containers
    assert (container.name, container.gpus, container.key_variables) == ("chat", True, ("NGC_API_KEY",))
    assert CANARY not in repr(facts)
    assert alone.containers is None


@pytest.mark.parametrize(
    ("version", "info", "kind"),
    [
        (ENGINE, {}, "engine"),
        (components("Engine", platform="Docker Desktop 4.50.0 (209931)"), {}, "desktop"),
        (components("Engine"), {"OperatingSystem": "Docker Desktop"}, "desktop"),
        (components("Engine"), {"DockerRootDir": "/var/snap/docker/common/var-lib-docker"}, "snap"),
        (components("Podman Engine", "Conmon", "OCI Runtime (crun)", platform="linux/amd64/fedora-42"), {}, "podman"),
        (components("balena-engine"), {}, "other"),
        (VERSION, {}, None),
    ],
)
def test_who_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: object, info: object, kind: str | None
) -> None:
    with daemon(tmp_path, monkeypatch, engine(version, info)):
        facts = describe_daemon(20.0)
    assert (facts.state, facts.kind) == ("ok", kind)


def test_a_container_that_cannot_be_inspected_does_not_hide_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()

    def hang(_connection: socket.socket, _path: str) -> None:
        end.wait(30)

    with daemon(tmp_path, monkeypatch, engine(ENGINE, INFO, inspect=hang)):
        facts = describe_daemon(2.0)
        end.set()
    assert (facts.state, facts.version) == ("ok", "20.10.24")
    assert facts.containers is not None
    assert [(c.name, c.gpus) for c in facts.containers] == [("chat", None)]


def test_a_daemon_that_dies_after_the_first_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = threading.Event()

    def dying(connection: socket.socket, path: str) -> None:
        if not dead.is_set():
            old_daemon(connection, path)

    with daemon(tmp_path, monkeypatch, dying):
        runtime = DockerRuntime.connect()
        dead.set()
        with closing(runtime.engine), pytest.raises(NimctlError) as caught:
            runtime.list_runs()
    assert caught.value.id == "docker-unreachable"


def test_the_current_context_is_asked_where_no_variable_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with daemon(tmp_path, monkeypatch, old_daemon) as path:
        monkeypatch.delenv("DOCKER_HOST")
        monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
        meta = tmp_path / "config/contexts/meta" / hashlib.sha256(b"lab").hexdigest()
        meta.mkdir(parents=True)
        endpoint = {"docker": {"Host": f"unix://{path}", "SkipTLSVerify": False}}
        (meta / "meta.json").write_text(json.dumps({"Name": "lab", "Metadata": {}, "Endpoints": endpoint}))
        (tmp_path / "config/config.json").write_text(json.dumps({"currentContext": "lab"}))
        facts = describe_daemon(20.0)
    assert (facts.state, facts.endpoint) == ("ok", f"unix://{path}")


def pulling(*events: object, then: Callable[[socket.socket], None] = lambda _: None) -> Behaviour:
    """A daemon that answers a pull with these events and then does that."""

    def behave(connection: socket.socket, path: str) -> None:
        if "/images/create" not in path:
            old_daemon(connection, path)
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            line = json.dumps(event).encode() + b"\r\n"
            connection.sendall(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        then(connection)

    return behave


IDENTITY = ImageIdentity(
    "r.example/x:1", f"sha256:{'1' * 64}", f"sha256:{'1' * 64}", f"sha256:{'2' * 64}", "linux/amd64"
)
DOWNLOADING = {"id": "a", "status": "Downloading", "progressDetail": {"current": 5, "total": 10}}


@pytest.mark.parametrize(
    ("sentence", "error_id", "code"),
    [
        ("unauthorized: authentication required", "key-refused", 4),
        ("manifest for x:1 not found: manifest unknown: manifest unknown", "image-not-found", 5),
        ("write /d/tmp/x: no space left on device", "disk-full", 9),
        ("error pulling image configuration: i/o timeout", "image-pull-failed", 5),
    ],
)
def test_an_error_in_the_stream_of_a_pull(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentence: str, error_id: str, code: int
) -> None:
    end = b"0\r\n\r\n"
    behave = pulling(DOWNLOADING, {"error": sentence}, then=lambda c: c.sendall(end))
    with (
        daemon(tmp_path, monkeypatch, behave),
        closing(Engine.connect()) as engine,
        pytest.raises(NimctlError) as caught,
    ):
        engine.pull(PullPlan(IDENTITY))
    assert (caught.value.id, caught.value.exit_code) == (error_id, code)


def test_a_pull_that_falls_silent_ends_and_keeps_what_it_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    seen: list[int | None] = []
    with daemon(tmp_path, monkeypatch, pulling(DOWNLOADING, then=lambda _: end.wait(30))):
        with closing(Engine.connect()) as engine, pytest.raises(NimctlError) as caught:
            engine.pull(PullPlan(IDENTITY), on_event=lambda p: seen.append(p.done), silence=0.5)
        end.set()
    assert caught.value.id == "image-pull-failed"
    assert seen == [5]


def test_a_daemon_that_dies_in_a_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        daemon(tmp_path, monkeypatch, pulling(DOWNLOADING)),
        closing(Engine.connect()) as engine,
        pytest.raises(NimctlError) as caught,
    ):
        engine.pull(PullPlan(IDENTITY), silence=10)
    assert caught.value.id in ("image-pull-failed", "docker-unreachable")
