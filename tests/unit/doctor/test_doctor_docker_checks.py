"""The Docker Engine: there, new enough, of the right kind, and set up for GPUs."""

from dataclasses import replace

import pytest

from nimctl.core.docker_state import podman_error
from nimctl.core.facts import ContainerFacts, DaemonConfig
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import HEALTHY, KIMI, host, judge, verdicts

NO_GPU = Needs(recipe=KIMI, gpus="none")
CONFIG = DaemonConfig("/etc/docker/daemon.json", exists=True)
LEGACY = {"mode": "legacy", "config": "/etc/nvidia-container-runtime/config.toml"}


def config(**changes):
    return {"config": replace(CONFIG, **changes)}


# The daemon


@pytest.mark.parametrize(
    ("state", "error_id", "fix"),
    [
        ("missing", "docker-missing", "https://docs.docker.com/engine/install/"),
        ("permission", "docker-permission", "sudo usermod -aG docker $USER"),
        ("unreachable", "docker-unreachable", "sudo systemctl start docker"),
        ("hangs", "docker-hangs", "sudo systemctl restart docker"),
    ],
)
def test_a_daemon_that_does_not_answer_has_one_cause_and_one_fix(state, error_id, fix):
    facts = host(docker={"state": state, "detail": "what the socket said"}, system={"groups": ("engineers",)})
    (finding,) = judge("docker", facts)
    assert (finding.verdict, finding.id) == ("fail", error_id)
    assert fix in finding.fix
    assert "what the socket said" in finding.evidence
    for check in ("docker-version", "docker-kind", "image-store", "cgroup-driver", "toolkit-configured", "gpu-runtime",
                  "cdi", "gpu-containers", "keys-in-containers"):  # fmt: skip
        assert verdicts(judge(check, facts)) == [("skip", check)]


def test_who_is_in_the_docker_group_already_is_not_told_to_join_it():
    (finding,) = judge("docker", host(docker={"state": "permission"}))
    assert "usermod" not in finding.fix
    assert "ls -l /var/run/docker.sock" in finding.fix


def test_a_daemon_that_answers():
    (finding,) = judge("docker", HEALTHY)
    assert (finding.verdict, finding.title) == ("pass", "the Docker daemon answers on unix:///var/run/docker.sock")


def test_podman_in_docker_s_place_fails_with_gpus_and_warns_without():
    podman = host(docker={"kind": "podman", "version": "5.4.2", "runtimes": ("crun", "nvidia")})
    assert verdicts(judge("docker", podman)) == [("fail", "docker-is-podman")]
    assert verdicts(judge("docker", podman, NO_GPU)) == [("warn", "docker-is-podman")]
    for check in ("docker-version", "docker-kind", "gpu-runtime", "cdi", "cgroup-driver"):
        (finding,) = judge(check, podman)
        assert (finding.verdict, finding.cause) == ("skip", "Podman answers in Docker's place")
    assert podman_error(podman.docker).exit_code == 3
    assert podman_error(HEALTHY.docker) is None


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("24.0.0", ("pass", "docker-version")),
        ("24", ("pass", "docker-version")),
        ("29.1.0", ("pass", "docker-version")),
        ("26.1.5+dfsg1", ("pass", "docker-version")),
        ("23.0.6", ("fail", "docker-too-old")),
        ("20.10.24+dfsg1", ("fail", "docker-too-old")),
        ("0.0.0-dev", ("unknown", "docker-version")),
        ("library-import", ("unknown", "docker-version")),
        (None, ("unknown", "docker-version")),
    ],
)
def test_docker_version(version, expected):
    assert verdicts(judge("docker-version", host(docker={"version": version}))) == [expected]


# Its kind


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [("pass", "docker-kind")]),
        ({"kind": "other"}, [("unknown", "docker-kind")]),
        ({"kind": None}, [("unknown", "docker-kind")]),
        ({"kind": "snap"}, [("warn", "docker-snap")]),
        ({"kind": "desktop"}, [("warn", "docker-desktop")]),
        ({"rootless": True}, [("warn", "docker-user-namespace")]),
        ({"security_options": ("name=userns",)}, [("warn", "docker-user-namespace")]),
        (
            {"rootless": True, "cgroup_version": "1", "cgroup_driver": "none"},
            [("warn", "docker-user-namespace"), ("warn", "docker-rootless-limits")],
        ),
    ],
)
def test_kind_of_docker(change, expected):
    assert verdicts(judge("docker-kind", host(docker=change))) == expected


def test_a_rootless_engine_may_not_publish_low_ports():
    rootless = {"rootless": True}
    low = judge("docker-kind", host(docker=rootless, port={"port": 443}))
    assert [f.id for f in low] == ["docker-user-namespace", "docker-rootless-port"]
    assert "net.ipv4.ip_unprivileged_port_start=443" in low[1].fix
    assert verdicts(judge("docker-kind", host(port={"port": 443}))) == [("pass", "docker-kind")]


def test_a_snap_says_when_it_does_not_see_the_cache():
    (outside,) = judge("docker-kind", host(docker={"kind": "snap"}))
    (inside,) = judge("docker-kind", host(docker={"kind": "snap"}, cache={"path": "/home/ann/nim"}))
    assert "does not see /data/nim" in outside.title
    assert inside.title == "Docker is a snap"


def test_docker_desktop_has_gpus_with_wsl_only():
    desktop = {"kind": "desktop"}
    assert [f.severity for f in judge("docker-kind", host(docker=desktop))] == ["warning"]
    assert [f.severity for f in judge("docker-kind", host(docker=desktop, system={"wsl": True}))] == ["info"]
    (finding,) = judge("gpu-runtime", host(docker=desktop))
    assert (finding.id, "virtual machine" in finding.cause) == ("gpu-runtime-missing", True)
    assert verdicts(judge("gpu-runtime", host(docker=desktop, system={"wsl": True}))) == [("pass", "gpu-runtime")]


def test_a_configuration_that_keeps_docker_from_starting_is_to_be_corrected_first():
    broken = DaemonConfig("/etc/docker/daemon.json", exists=True, problem="line 3: no comma")
    (finding,) = judge("docker", host(docker={"state": "unreachable", "config": broken}))
    assert finding.id == "docker-unreachable"
    assert "line 3: no comma" in finding.cause and finding.fix.startswith("Correct /etc/docker/daemon.json")
    (finding,) = judge("docker", host(docker={"state": "unreachable"}))
    assert "systemctl start docker" in finding.fix


# Where images lie


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ("pass", "image-store")),
        ({"storage_driver": "overlayfs", "containerd_store": True}, ("pass", "image-store")),
        ({"storage_driver": "vfs"}, ("pass", "image-store")),  # `image-filesystem` warns of it
        ({"storage_driver": None}, ("unknown", "image-store")),
    ],
)
def test_image_store(change, expected):
    assert verdicts(judge("image-store", host(docker=change))) == [expected]


# Who manages control groups


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, ("pass", "cgroup-driver")),
        ({"docker": {"cgroup_driver": "cgroupfs"}, "toolkit": LEGACY}, ("pass", "cgroup-driver")),
        ({"docker": {"cgroup_driver": None}}, ("unknown", "cgroup-driver")),
        ({"toolkit": LEGACY}, ("warn", "gpus-lost-on-reload")),
        ({"toolkit": {"version": "1.17.8"}}, ("warn", "gpus-lost-on-reload")),  # its mode "auto" was the hook
        ({"toolkit": {**LEGACY, "version": "1.17.8", "mode": "cdi"}}, ("pass", "cgroup-driver")),
        ({"toolkit": {"version": None}}, ("unknown", "cgroup-driver")),
        ({"toolkit": {"config_problem": "this user may not read it"}}, ("unknown", "cgroup-driver")),
        ({"docker": {"runtimes": ("runc",)}}, ("warn", "gpus-lost-on-reload")),  # --gpus is left, a hook
        ({"docker": {"runtimes": ("runc",)}, "toolkit": {"hook": None}}, ("pass", "cgroup-driver")),  # CDI is left
        ({"docker": {"runtimes": ("runc",)}, "toolkit": {"hook": None}, "cdi": ()}, ("skip", "cgroup-driver")),
    ],
)
def test_gpus_that_a_daemon_reload_takes_away(parts, expected):
    assert verdicts(judge("cgroup-driver", host(**parts))) == [expected]


def test_with_links_in_dev_char_the_hook_is_a_lesser_risk():
    (finding,) = judge("cgroup-driver", host(toolkit=LEGACY, nvidia_kernel={"dev_char_links": True}))
    assert (finding.verdict, finding.severity) == ("warn", "info")


@pytest.mark.parametrize(
    ("runc", "links", "expected"),
    [
        ("1.1.2", False, "pass"),
        ("1.1.5", False, "warn"),
        ("1.1.5", True, "pass"),
        ("1.1.5", None, "unknown"),
        ("1.1.5+ds1", False, "unknown"),  # a distribution may have mended it
        ("1.1.7", False, "pass"),
        (None, False, "pass"),
    ],
)
def test_some_versions_of_runc_need_links_in_dev_char(runc, links, expected):
    facts = host(docker={"runc": runc}, nvidia_kernel={"dev_char_links": links})
    assert [f.verdict for f in judge("cgroup-driver", facts)] == [expected]


# The configuration file


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"config": None}, ("skip", "daemon-config")),
        (config(exists=False), ("pass", "daemon-config")),
        (config(exists=None), ("unknown", "daemon-config")),
        (config(), ("pass", "daemon-config")),
        (config(problem="Expecting value: line 3"), ("warn", "docker-config-invalid")),
        (config(repeated=("runtimes",)), ("warn", "docker-config-repeated")),
        (config(runtimes=("nvidia",)), ("pass", "daemon-config")),
        ({"runtimes": ("runc",), **config(runtimes=("nvidia",))}, ("warn", "docker-restart-pending")),
        (config(default_runtime="nvidia"), ("warn", "docker-restart-pending")),
        (config(cgroup_driver="cgroupfs"), ("warn", "docker-restart-pending")),
        (config(cgroup_driver="systemd"), ("pass", "daemon-config")),
        (config(live_restore=True), ("warn", "docker-restart-pending")),
        (config(cdi=False), ("warn", "docker-restart-pending")),
        ({"cdi_spec_dirs": None, **config(cdi=True)}, ("warn", "docker-restart-pending")),
        ({"cdi_spec_dirs": None, "version": "24.0.9", **config(cdi=True)}, ("pass", "daemon-config")),
        ({"state": "unreachable", **config(hosts=True)}, ("warn", "docker-config-hosts")),
        ({"state": "unreachable", **config(problem="no")}, ("warn", "docker-config-invalid")),
        (config(hosts=True), ("pass", "daemon-config")),
    ],
)
def test_configuration_file(change, expected):
    assert verdicts(judge("daemon-config", host(docker=change))) == [expected]


def test_a_restart_says_what_it_stops():
    running = (ContainerFacts("1", "chat", gpus=True),)
    pending = {"containers": running, **config(cgroup_driver="cgroupfs")}
    (finding,) = judge("daemon-config", host(docker=pending))
    assert "it stops 1 running containers" in finding.fix
    (finding,) = judge("daemon-config", host(docker={**pending, "live_restore": True}))
    assert "running containers go on" in finding.fix
    (finding,) = judge("daemon-config", host(docker={"runtimes": ("runc",), **config(runtimes=("nvidia",))}))
    assert "systemctl reload docker" in finding.fix


@pytest.mark.parametrize(
    "check",
    ["docker", "docker-version", "docker-kind", "image-store", "cgroup-driver", "daemon-config", "toolkit",
     "toolkit-configured", "gpu-runtime", "cdi", "gpu-containers", "keys-in-containers"],
)  # fmt: skip
def test_the_process_runtime_asks_nothing_of_docker(check):
    (finding,) = judge(check, host(docker={"state": "missing"}), Needs(recipe=KIMI, runtime="process"))
    assert (finding.verdict, finding.cause) == ("skip", "the process runtime uses no container")


@pytest.mark.parametrize(
    "parts",
    [
        {"docker": {"version": "29.1.3", "storage_driver": "overlayfs", "containerd_store": True, "runc": "1.3.4"}},
        {
            "docker": {"version": "28.5.2", "containerd_store": True, "storage_driver": "overlayfs"},
            "system": {"os_id": "rocky", "os_version": "9.6", "os_name": "Rocky Linux 9.6 (Blue Onyx)"},
            "security": {"selinux": "enforcing"},
        },
        {"nvidia_kernel": {"dev_char_links": True, "module": "580.95.05"}},
        {"docker": {"live_restore": True, "default_runtime": "nvidia"}},
    ],
    ids=["ubuntu-29", "rocky", "links", "default-runtime"],
)
def test_ordinary_healthy_hosts_are_left_in_peace(parts):
    for check in ("docker", "docker-version", "docker-kind", "image-store", "cgroup-driver", "daemon-config", "toolkit",
                  "toolkit-configured", "gpu-runtime", "cdi", "gpu-containers", "keys-in-containers"):  # fmt: skip
        assert verdicts(judge(check, host(**parts))) == [("pass", check)]
