"""Looking at Docker's configuration file, the toolkit's, CDI specifications and running containers."""

import json
import os
import time
from pathlib import Path

import pytest

from nimctl.core.facts import CdiSpec, ContainerFacts, DockerFacts, ToolkitFacts
from nimctl.doctor.observe.daemon_config import look_at_daemon_config, read_daemon_config
from nimctl.doctor.observe.nvidia import look_at_cdi, look_at_toolkit
from nimctl.launch.docker.running import MOST_INSPECTED, OUR_LABEL, describe, look_at_running
from nimctl.launch.docker.runtime import LABEL
from tests.lib.users import needs_root

CANARY = "nvapi-CANARY0123456789abcdef"
STANDARD = DockerFacts("ok", endpoint="unix:///var/run/docker.sock", kind="engine")
SOCKET = "unix:///srv/own/docker.sock"


def write(root: Path, name: str, content: object) -> Path:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# Docker's configuration file


def test_what_matters_of_the_configuration_is_kept_and_nothing_else(tmp_path):
    content = {
        "hosts": ["fd://"],
        "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}},
        "default-runtime": "nvidia",
        "features": {"cdi": True},
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "live-restore": True,
        "default-shm-size": "64G",
        "default-ulimits": {"memlock": {"Name": "memlock", "Hard": -1, "Soft": -1}, "odd": {"Hard": "x"}, "no": 3},
        "userns-remap": "default",
        "proxies": {"http-proxy": f"http://u:{CANARY}@proxy"},
        "log-opts": {"token": CANARY},
    }
    write(tmp_path, "etc/docker/daemon.json", content)
    seen = look_at_daemon_config(STANDARD, tmp_path)
    assert (seen.exists, seen.problem, seen.repeated, seen.hosts) == (True, None, (), True)
    assert (seen.runtimes, seen.default_runtime, seen.cdi) == (("nvidia",), "nvidia", True)
    assert (seen.cgroup_driver, seen.live_restore, seen.default_shm_size) == ("cgroupfs", True, "64G")
    assert seen.default_ulimits == {"memlock": (-1, -1)}
    assert (seen.userns_remap, seen.proxies, len(seen.text_hash)) == (True, True, 64)
    assert CANARY not in repr(seen)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1', "Expecting ',' delimiter: line 1 column 8 (char 7)"),
        ("[]", "it is not a JSON object"),
        ("\xff{}", "codec can't decode"),
        ("[" * 100_000, ""),
    ],
)
def test_a_broken_configuration_has_a_problem(tmp_path, text, problem):
    path = tmp_path / "daemon.json"
    path.write_bytes(text.encode("latin-1"))
    seen = read_daemon_config(path)
    assert seen.exists
    assert seen.problem is not None
    assert problem in seen.problem


@pytest.mark.parametrize(
    "content",
    [{"runtimes": 3, "features": [], "exec-opts": "x", "live-restore": "yes", "default-ulimits": []}, {}, ""],
)
def test_values_of_the_wrong_kind_say_nothing(tmp_path, content):
    seen = read_daemon_config(write(tmp_path, "daemon.json", content))
    assert (seen.exists, seen.problem) == (True, None)
    assert (seen.runtimes, seen.cdi, seen.cgroup_driver, seen.live_restore) == (None, None, None, None)


def test_a_key_that_stands_twice_is_named(tmp_path):
    path = write(tmp_path, "daemon.json", '{"runtimes": {"a": {}}, "runtimes": {"nvidia": {}}, "debug": true}')
    assert read_daemon_config(path).repeated == ("runtimes",)


def test_two_versions_of_a_file_are_told_apart(tmp_path):
    one = read_daemon_config(write(tmp_path, "1.json", {"debug": True}))
    two = read_daemon_config(write(tmp_path, "2.json", {"debug": False}))
    assert one.text_hash != two.text_hash


def test_no_configuration_file_is_not_an_unreadable_one(tmp_path):
    assert look_at_daemon_config(STANDARD, tmp_path).exists is False
    assert read_daemon_config(write(tmp_path, "file", "{}") / "daemon.json").exists is False
    assert read_daemon_config(tmp_path).problem is not None


@pytest.mark.parametrize(
    ("docker", "path"),
    [
        (STANDARD, "etc/docker/daemon.json"),
        (DockerFacts("unreachable", endpoint="unix:///run/docker.sock"), "etc/docker/daemon.json"),
        (DockerFacts("ok", endpoint=STANDARD.endpoint, kind="snap"), "var/snap/docker/current/config/daemon.json"),
        (DockerFacts("ok", endpoint="unix:///run/user/1000/docker.sock"), "home/ann/.config/docker/daemon.json"),
        (DockerFacts("ok", endpoint="unix:///run/user/4242/docker.sock"), None),
        (DockerFacts("ok", endpoint=SOCKET), None),
        (DockerFacts("ok", endpoint="tcp://10.0.0.1:2375"), None),
        (DockerFacts("ok", endpoint=STANDARD.endpoint, kind="desktop"), None),
        (DockerFacts("ok", endpoint=STANDARD.endpoint, kind="podman"), None),
        (DockerFacts("hangs"), None),
    ],
)
def test_which_file_belongs_to_which_daemon(tmp_path, docker, path):
    write(tmp_path, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\nbroken\nann:x:1000:1000::/home/ann:/bin/bash\n")
    seen = look_at_daemon_config(docker, tmp_path)
    assert (seen.path if seen else None) == (str(tmp_path / path) if path else None)


@pytest.mark.parametrize("flags", [("--config-file", "/srv/d.json"), ("--config-file=/srv/d.json",)])
@pytest.mark.parametrize("by_flag", [True, False])
def test_a_running_daemon_tells_its_file(tmp_path, flags, by_flag):
    words = ["dockerd", *flags, *(["-H", SOCKET] if by_flag else [])]
    write(tmp_path, "proc/7/comm", "dockerd\n")
    write(tmp_path, "proc/7/cmdline", "\0".join(words))
    write(tmp_path, "proc/8/comm", "dockerd-rootless\n")
    write(tmp_path, "proc/self/comm", "dockerd\n")
    write(tmp_path, "srv/d.json", {} if by_flag else {"hosts": [SOCKET]})
    assert look_at_daemon_config(DockerFacts("ok", endpoint=SOCKET), tmp_path).path == str(tmp_path / "srv/d.json")
    assert look_at_daemon_config(DockerFacts("ok", endpoint=SOCKET + "2"), tmp_path) is None


def named_by(tmp_path, target):
    """A process that calls itself dockerd and names this file on its command line."""
    write(tmp_path, "proc/7/comm", "dockerd\n")
    write(tmp_path, "proc/7/cmdline", "\0".join(["dockerd", "--config-file", target]))
    return look_at_daemon_config(DockerFacts("ok", endpoint=SOCKET), tmp_path)


def test_a_file_named_on_a_command_line_is_read_only_as_far_as_a_configuration_goes(tmp_path):
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2**40)
    os.mkfifo(tmp_path / "pipe")
    assert named_by(tmp_path, "/huge") is None
    assert named_by(tmp_path, "/pipe") is None
    assert read_daemon_config(tmp_path / "pipe").problem == "it is not a regular file"
    assert read_daemon_config(tmp_path / "huge").problem == "it is too large"


@needs_root
def test_what_another_user_calls_dockerd_is_not_believed(tmp_path):
    write(tmp_path, "srv/d.json", {"hosts": [SOCKET]})
    assert named_by(tmp_path, "/srv/d.json").path == str(tmp_path / "srv/d.json")
    os.chown(tmp_path / "proc/7", 12345, 12345)
    assert named_by(tmp_path, "/srv/d.json") is None


# The toolkit's configuration


def later():
    return time.monotonic() + 60


def test_the_toolkit_s_configuration(tmp_path):
    text = (
        "disable-require = false\n[features]\nallow-cuda-compat-libs-from-container = true\nother = false\n"
        '[nvidia-container-cli]\nno-cgroups = true\n[nvidia-container-runtime]\nmode = "cdi"\n'
    )
    path = write(tmp_path, "etc/nvidia-container-runtime/config.toml", text)
    (tmp_path / "nvidia-ctk").write_text("#!/bin/sh\necho 'NVIDIA Container Toolkit CLI version 1.17.8'\n")
    (tmp_path / "nvidia-ctk").chmod(0o755)
    seen = look_at_toolkit({"PATH": str(tmp_path)}, later(), tmp_path)
    assert seen == ToolkitFacts(
        "1.17.8",
        "nvidia-ctk",
        ctk=str(tmp_path / "nvidia-ctk"),
        config=str(path),
        mode="cdi",
        no_cgroups=True,
        features=("allow-cuda-compat-libs-from-container",),
    )


@pytest.mark.parametrize("text", ["[nvidia", "features = 3\nnvidia-container-cli = []\n", "[features]\nx = 'on'\n"])
def test_an_odd_configuration_of_the_toolkit(tmp_path, text):
    path = write(tmp_path, "etc/nvidia-container-runtime/config.toml", text)
    seen = look_at_toolkit({"PATH": str(tmp_path)}, later(), tmp_path)
    assert seen.config == str(path)
    assert (seen.config_problem is not None) == (text == "[nvidia")
    assert (seen.mode, seen.no_cgroups) == (None, None)


def test_no_configuration_of_the_toolkit(tmp_path):
    assert look_at_toolkit({"PATH": str(tmp_path)}, later(), tmp_path) == ToolkitFacts()


# CDI specifications

SPEC = """
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  deviceNodes: [{path: /dev/null}, {path: /dev/nvidia-uvm, hostPath: HERE/gone-node}, 3]
  hooks: [{hookName: createContainer, path: HERE/gone-hook, args: [x]}, {path: relative-hook}]
  mounts:
  - {hostPath: HERE/libcuda.so.580.95.05, containerPath: /usr/lib/libcuda.so.580.95.05}
  - {hostPath: HERE/libcudadebugger.so.1, containerPath: /x}
devices:
- name: '0'
  containerEdits: {deviceNodes: [{path: HERE/gone-0}, {path: HERE/gone-0}]}
- name: all
  containerEdits: null
"""


def test_the_driver_and_the_missing_files_of_a_specification(tmp_path):
    (tmp_path / "libcuda.so.580.95.05").touch()
    path = write(tmp_path, "nvidia.yaml", SPEC.replace("HERE", str(tmp_path)))
    missing = [str(tmp_path / name) for name in ("libcudadebugger.so.1", "gone-node", "gone-hook", "gone-0")]
    assert look_at_cdi([str(tmp_path)]) == (
        CdiSpec(str(path), "nvidia.com/gpu", ("0", "all"), driver="580.95.05", missing=tuple(missing)),
    )


def test_of_many_missing_files_the_first_are_named(tmp_path):
    mounts = [{"hostPath": f"/gone/{i}"} for i in range(100)]
    write(tmp_path, "a.json", {"kind": "nvidia.com/gpu", "devices": [], "containerEdits": {"mounts": mounts}})
    (found,) = look_at_cdi([str(tmp_path)])
    assert found.missing == tuple(f"/gone/{i}" for i in range(8))
    assert found.driver is None


@pytest.mark.parametrize("text", ["{", '{"kind": 3, "devices": []}', "[" * 100_000])
def test_broken_json_specifications(tmp_path, text):
    write(tmp_path, "a.json", text)
    (found,) = look_at_cdi([str(tmp_path)])
    assert found.problem


def test_a_file_that_cannot_be_looked_for_is_not_called_missing(tmp_path):
    closed = "/closed\0"  # no path can hold this
    write(tmp_path, "a.json", {"kind": "k", "devices": [], "containerEdits": {"mounts": [{"hostPath": closed}]}})
    (found,) = look_at_cdi([str(tmp_path)])
    assert found.missing == ()


# Running containers

INSPECTED = {
    "Id": "0123456789abcdef",
    "Name": "/chat",
    "Config": {"Image": "vllm/vllm-openai:v0.15.0", "Env": ["PATH=/bin", f"HF_TOKEN={CANARY}"], "Labels": None},
    "HostConfig": {},
}


def container(env=(), labels=None, **host):
    config = {"Image": "x", "Env": list(env), "Labels": labels}
    return describe({"Id": "1", "Name": "/x", "Config": config, "HostConfig": host})


def test_a_container_without_any_value_of_its_environment():
    seen = describe(INSPECTED)
    assert seen == ContainerFacts(
        "0123456789ab", "chat", "vllm/vllm-openai:v0.15.0", gpus=False, key_variables=("HF_TOKEN",)
    )
    assert CANARY not in repr(seen)


@pytest.mark.parametrize(
    ("host", "env", "gpus"),
    [
        ({}, [], False),
        ({"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]}, [], True),
        ({"DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": ["0"], "Capabilities": None}]}, [], True),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]}, [], True),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/net=0"]}]}, [], False),
        ({"DeviceRequests": [{"Driver": "amd", "Capabilities": [["storage"]]}]}, [], False),
        ({"Runtime": "nvidia"}, ["NVIDIA_VISIBLE_DEVICES=all"], True),
        ({"Runtime": "nvidia"}, ["NVIDIA_VISIBLE_DEVICES=void"], False),
        ({"Runtime": "nvidia"}, [], False),  # the default runtime, and an image that asks for no GPU
        ({"Runtime": "runc"}, ["NVIDIA_VISIBLE_DEVICES=all"], False),
        ({"Devices": [{"PathOnHost": "/dev/nvidia0"}]}, [], True),
        ({"Devices": [{"PathOnHost": "/dev/fuse"}]}, [], False),
    ],
)
def test_which_containers_have_gpus(host, env, gpus):
    assert container(env, **host).gpus is gpus


@pytest.mark.parametrize(
    ("line", "is_key"),
    [
        ("NGC_API_KEY=abcdefgh1234", True),
        ("POSTGRES_PASSWORD=correct-horse", True),
        (f"INNOCENT={CANARY}", True),
        ("NGC_API_KEY=", False),
        ("NGC_API_KEY_FILE=/run/secrets/key", False),
        ("HF_TOKEN=/run/secrets/token", False),
        ("GPG_KEY=7169605F62C751356D054A26A821E680E5FA6305", False),
        ("USE_KEYS=true", False),
        ("PATH=/usr/bin", False),
        ("NO_EQUALS_SIGN", False),
    ],
)
def test_which_variables_hold_keys(line, is_key):
    assert bool(container([line]).key_variables) is is_key


def test_containers_of_ours_are_known_by_their_label():
    assert OUR_LABEL == LABEL
    assert container(labels={LABEL: "chat"}).ours is True
    assert container(labels={"other": "1"}).ours is False


class NotFound(Exception):  # noqa: N818 (docker-py's name)
    pass


class Client:
    """Containers 0 to n; those in `broken` raise when they are inspected."""

    def __init__(self, count, broken=()):
        self.count, self.broken, self.inspected = count, dict(broken), 0

    def containers(self):
        return [{"Id": f"{i:064}", "Names": [f"/c{i:04}"], "Image": "x", "Labels": {}} for i in range(self.count)]

    def inspect_container(self, name):
        self.inspected += 1
        if error := self.broken.get(int(name)):
            raise error
        return {**INSPECTED, "Id": name, "Name": f"/c{int(name):04}"}


def test_of_many_containers_only_so_many_are_inspected():
    client = Client(MOST_INSPECTED + 10)
    seen = look_at_running(client, later())
    assert client.inspected == MOST_INSPECTED
    assert [c.gpus for c in seen] == [False] * MOST_INSPECTED + [None] * 10
    assert [c.name for c in seen] == [f"c{i:04}" for i in range(MOST_INSPECTED + 10)]


def test_without_time_only_names_are_seen():
    client = Client(3)
    assert [c.gpus for c in look_at_running(client, time.monotonic())] == [None] * 3
    assert client.inspected == 0


def test_one_that_is_gone_is_left_out_and_one_that_hangs_keeps_its_name():
    seen = look_at_running(Client(3, {0: NotFound(), 1: TimeoutError()}), later())
    assert [(c.name, c.gpus) for c in seen] == [("c0001", None), ("c0002", False)]
