"""SELinux and AppArmor: where they keep containers from cache or GPUs, and where they do not."""

import pytest

from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import DEMO, KIMI, host, judge, verdicts
from tests.unit.doctor.system_hosts import H200_UBUNTU, ROCKY

SHARED = "system_u:object_r:container_file_t:s0"
# Docker was told "selinux-enabled": true.
LABELLING = host(
    ROCKY,
    docker={"security_options": ("name=seccomp,profile=builtin", "name=selinux")},
    security={"selinux_devices": True},
    cache={"selinux_label": SHARED},
)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (LABELLING, ("pass", "selinux")),
        (ROCKY, ("pass", "selinux")),  # Docker labels nothing unless it is told to
        (H200_UBUNTU, ("pass", "selinux")),
        (host(LABELLING, security={"selinux": "permissive", "selinux_devices": False}), ("pass", "selinux")),
        (host(LABELLING, security={"selinux": None}), ("unknown", "selinux")),
        (host(LABELLING, docker={"state": "permission"}), ("skip", "selinux")),
        (
            host(LABELLING, cache={"selinux_label": "unconfined_u:object_r:user_home_t:s0"}),
            ("warn", "selinux-cache-label"),
        ),
        (host(LABELLING, cache={"selinux_label": "system_u:object_r:svirt_sandbox_file_t:s0"}), ("pass", "selinux")),
        (host(LABELLING, cache={"selinux_label": "system_u:object_r:nfs_t:s0"}), ("unknown", "selinux")),
        (host(LABELLING, cache={"selinux_label": None}), ("unknown", "selinux")),
        (host(LABELLING, cache={"selinux_label": None, "exists": False}), ("pass", "selinux")),
        (host(LABELLING, security={"selinux_devices": False}), ("warn", "selinux-gpu-devices")),
        (host(LABELLING, security={"selinux_devices": None}), ("pass", "selinux")),
    ],
)
def test_selinux(facts, expected):
    assert verdicts(judge("selinux", facts)) == [expected]


def test_selinux_may_keep_containers_from_both_and_says_what_to_run():
    facts = host(LABELLING, security={"selinux_devices": False}, cache={"selinux_label": "u:object_r:default_t:s0"})
    label, devices = judge("selinux", facts)
    assert "semanage fcontext -a -t container_file_t '/data/nim(/.*)?'" in label.fix
    assert "setsebool -P container_use_devices on" in devices.fix


def test_selinux_and_gpus_matter_only_where_they_are_used():
    facts = host(LABELLING, security={"selinux_devices": False})
    assert verdicts(judge("selinux", facts, Needs(DEMO, gpus="none"))) == [("pass", "selinux")]
    assert verdicts(judge("selinux", facts, Needs(KIMI, runtime="process"))) == [("skip", "selinux")]


NO_APPARMOR = ("name=seccomp,profile=builtin", "name=cgroupns")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (H200_UBUNTU, ("pass", "apparmor")),
        (ROCKY, ("pass", "apparmor")),
        (host(H200_UBUNTU, docker={"security_options": NO_APPARMOR}), ("warn", "apparmor-unused")),
        (host(H200_UBUNTU, docker={"security_options": NO_APPARMOR, "rootless": True}), ("skip", "apparmor")),
        (host(H200_UBUNTU, docker={"security_options": NO_APPARMOR, "kind": "snap"}), ("skip", "apparmor")),
        (
            host(H200_UBUNTU, docker={"security_options": NO_APPARMOR}, security={"apparmor": None}),
            ("unknown", "apparmor"),
        ),
        (host(H200_UBUNTU, docker={"state": "missing"}), ("skip", "apparmor")),
    ],
)
def test_apparmor(facts, expected):
    (finding,) = judge("apparmor", facts)
    assert (finding.verdict, finding.id) == expected
    assert finding.severity == "info"


def test_the_process_runtime_is_not_confined_by_docker():
    assert verdicts(judge("apparmor", H200_UBUNTU, Needs(KIMI, runtime="process"))) == [("skip", "apparmor")]


def test_a_cache_folder_with_spaces_is_quoted():
    cache = {"path": "/data/my nim", "selinux_label": "u:object_r:default_t:s0"}
    (label,) = judge("selinux", host(LABELLING, cache=cache))
    assert "container_file_t '/data/my nim(/.*)?' && sudo restorecon -R '/data/my nim'`" in label.fix
