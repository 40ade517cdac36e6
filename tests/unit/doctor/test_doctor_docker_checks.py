"""The Docker Engine: there, new enough, of the right kind, and set up for GPUs."""

from dataclasses import replace

import pytest

from nimctl.core.docker_state import NO_SSH, podman_error
from nimctl.core.facts import ContainerFacts, DaemonConfig
from nimctl.doctor import checks
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import HEALTHY, KIMI, host, judge, verdicts, without_gpus

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
        ({"kind": "desktop"}, [("skip", "docker-kind")]),  # `gpu-runtime` fails for it
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
    assert verdicts(judge("docker-kind", host(docker=desktop))) == [("skip", "docker-kind")]  # a cause fails once
    (finding,) = judge("docker-kind", host(docker=desktop), NO_GPU)
    assert (finding.id, finding.severity) == ("docker-desktop", "warning")
    assert [f.severity for f in judge("docker-kind", host(docker=desktop, system={"wsl": True}))] == ["info"]
    (finding,) = judge("gpu-runtime", host(docker=desktop))
    assert (finding.id, "virtual machine" in finding.cause) == ("gpu-runtime-missing", True)
    assert verdicts(judge("gpu-runtime", host(docker=desktop, problems=("cdi: no answer",)))) == [
        ("fail", "gpu-runtime-missing")  # whatever the look had found
    ]
    assert verdicts(judge("gpu-runtime", host(docker=desktop, system={"wsl": True}))) == [("pass", "gpu-runtime")]


# Docker of another machine, or of another kind


def findings_of(facts, needs=None):
    return [f for check in checks.ALL for f in check.judge(facts, needs or Needs(recipe=KIMI))]


@pytest.mark.parametrize("endpoint", ["ssh://me@gpu7", "tcp://10.0.0.7:2376", "https://gpu7.example:2376", "tcp://[x"])
def test_a_docker_of_another_machine_is_one_finding_and_this_machine_is_not_judged(endpoint):
    """This one is a laptop without GPU, without toolkit, and with a full disk."""
    laptop = host(
        docker={"endpoint": endpoint, "cdi_devices": None, "config": None},
        gpus=without_gpus(),
        nvidia_kernel={"pci_gpus": 0, "module": None},
        toolkit={"version": None, "hook": None},
        cdi=(),
        cache={"exists": False},
        security={"selinux": "enforcing"},
        image_store=None,
    )
    spoken = [f for f in findings_of(laptop) if f.verdict in ("fail", "warn")]
    assert [(f.check, f.id) for f in spoken] == [("docker", "docker-remote")]
    assert endpoint in spoken[0].title and "not judged" in spoken[0].cause
    for check in ("driver", "gpus", "memory", "cache", "disk", "image-filesystem", "toolkit", "gpu-runtime", "selinux"):
        (finding,) = judge(check, laptop)
        assert (finding.verdict, finding.cause) == ("skip", "Docker is on another machine")
    process = findings_of(laptop, Needs(recipe=KIMI, runtime="process"))
    assert "docker-remote" not in {f.id for f in process}
    assert {f.verdict for f in process if f.check == "driver"} == {"fail"}


@pytest.mark.parametrize(
    "endpoint", [None, "unix:///srv/docker.sock", "tcp://127.0.0.1:2375", "tcp://localhost:2375", "tcp://[::1]:2375"]
)
def test_a_docker_of_this_machine_is_judged(endpoint):
    facts = host(docker={"endpoint": endpoint})
    assert verdicts(judge("docker", facts)) == [("pass", "docker")]
    assert verdicts(judge("gpu-runtime", facts)) == [("pass", "gpu-runtime")]


@pytest.mark.parametrize("state", ["unreachable", "hangs", "permission"])
def test_a_docker_of_another_machine_that_does_not_answer_is_not_started_here(state):
    docker = {"state": state, "endpoint": "ssh://me@gpu7", "detail": NO_SSH}
    (finding,) = judge("docker", host(docker=docker))
    assert (finding.verdict, finding.id) == ("fail", f"docker-{state}")
    assert finding.fix.startswith("Run nimctl on that machine") and "systemctl" not in finding.fix
    assert NO_SSH in finding.cause
    (finding,) = judge("docker", host(docker={**docker, "endpoint": "tcp://gpu7:2376", "detail": "refused"}))
    assert "docker context ls" in finding.fix and "sudo" not in finding.fix


ROOTLESS_SOCKET = "unix:///run/user/1000/docker.sock"


@pytest.mark.parametrize(
    ("state", "fix"),
    [
        ("unreachable", "`systemctl --user start docker`; `journalctl --user -u docker"),
        ("hangs", "`systemctl --user restart docker`"),
        ("missing", "`systemctl --user start docker`"),
        ("permission", "another user's rootless Docker"),
    ],
)
def test_a_rootless_docker_is_not_the_service_of_root(state, fix):
    (finding,) = judge("docker", host(docker={"state": state, "endpoint": ROOTLESS_SOCKET}))
    assert fix in finding.fix
    assert "sudo" not in finding.fix


def test_the_service_of_each_kind_is_restarted_in_its_own_way():
    pending = {"live_restore": False, **config(cgroup_driver="cgroupfs")}
    for change, command in (
        ({}, "`sudo systemctl restart docker`"),
        ({"rootless": True}, "`systemctl --user restart docker`"),
        ({"kind": "snap"}, "`sudo snap restart docker`"),
    ):
        (finding,) = judge("daemon-config", host(docker={**pending, **change}))
        assert f"Run {command}; running containers stop, because live-restore is off" in finding.fix
    snap = {"kind": "snap", "runtimes": ("runc",), **config(runtimes=("nvidia",))}
    (finding,) = judge("daemon-config", host(docker=snap))
    assert "`sudo snap restart docker`; running containers stop" in finding.fix  # it knows no reload


def test_mapped_ids_are_the_callers_group_without_root_and_another_with_userns_remap():
    (rootless,) = judge("docker-kind", host(docker={"rootless": True}, cache={"path": "/data/my nim"}))
    assert "your own group" in rootless.cause and "subgid" not in rootless.fix
    assert "chmod -R g+rwX '/data/my nim'" in rootless.fix
    (remapped,) = judge("docker-kind", host(docker={"security_options": ("name=userns",)}))
    assert "/etc/subgid" in remapped.fix


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


def test_the_mode_cdi_is_advised_with_the_specification_that_it_needs_and_what_it_ends():
    (without,) = judge("cgroup-driver", host(toolkit=LEGACY, cdi=()))
    written = without.fix.index("nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml")
    assert written < without.fix.index("nvidia-container-runtime.mode=cdi")
    assert "1.18" in without.fix and "`--gpus` no longer start" in without.fix
    assert "running containers stop, because live-restore is off" in without.fix
    (with_one,) = judge("cgroup-driver", host(toolkit=LEGACY))
    assert "cdi generate" not in with_one.fix


def test_a_runtime_whose_program_is_gone_is_said_once():
    """--gpus, a hook, is left; what mends the runtime mends that as well."""
    gone = host(docker={"missing_runtimes": ("nvidia",)})
    spoken = [f.id for f in findings_of(gone) if f.verdict in ("fail", "warn")]
    assert spoken == ["nvidia-runtime-broken"]


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
    assert "it stops 1 running container, because" in finding.fix
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
