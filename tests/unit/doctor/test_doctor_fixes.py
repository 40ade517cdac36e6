"""From findings to remedies: each is planned from what the real checks say of a host, never from a guess."""

import shlex
from dataclasses import replace

import pytest

from nimctl.core.facts import CdiSpec, ContainerFacts, DaemonConfig
from nimctl.doctor.fixes import left_to_you, plan_remedies
from nimctl.doctor.model import Needs
from nimctl.doctor.runner import run_checks
from tests.unit.doctor.hosts import HEALTHY, KIMI, NIM_PAGE, gpu, gpus, host, inventory

ROOT = {"uid": 0, "groups": ("root",)}
DRIVER = "580.159.03"
NAMES = (*map(str, range(8)), "all")
BARE = {"runtimes": ("io.containerd.runc.v2", "runc"), "config": DaemonConfig("/etc/docker/daemon.json", exists=True)}
NO_HOOK = {"hook": None, "ctk": "/usr/bin/nvidia-ctk", "version": "1.19.1"}


def as_root(**parts):
    """The healthy host, seen by root, with parts changed."""
    system = {**ROOT, **parts.pop("system", {})}
    return host(toolkit=parts.pop("toolkit", {"ctk": "/usr/bin/nvidia-ctk"}), system=system, **parts)


def plan(facts, needs=None, **more):
    needs = needs or Needs(KIMI)
    return plan_remedies(run_checks(facts, needs).findings, facts, needs, **more)


def one(facts, name, needs=None, **more):
    found = {remedy.id: remedy for remedy in plan(facts, needs, **more)}
    assert name in found, sorted(found)
    return found[name]


def no_way_for_gpus(**parts):
    """Docker without NVIDIA's runtime, hook and CDI, and a toolkit that is installed."""
    docker = {**BARE, **parts.pop("docker", {})}
    return as_root(docker=docker, toolkit={**NO_HOOK, **parts.pop("toolkit", {})}, cdi=(), **parts)


def test_a_healthy_host_needs_nothing():
    assert plan(HEALTHY) == plan(as_root()) == ()


def test_the_runtime_is_brought_by_a_reload_which_containers_survive():
    remedy = one(no_way_for_gpus(docker={"containers": (ContainerFacts("1", "busy", gpus=True),)}), "docker-runtime")
    assert remedy.lines == (
        "nvidia-ctk runtime configure --runtime=docker --config=/etc/docker/daemon.json",
        "systemctl reload docker",
    )
    assert (remedy.risk, remedy.docker, remedy.runtime) == ("docker-reload", "reload", "nvidia")
    assert (remedy.backs_up, remedy.mends, remedy.refused) == (
        ("/etc/docker/daemon.json",),
        ("gpu-runtime-missing",),
        "",
    )


def test_the_runtime_that_a_page_uses_is_brought_too():
    facts = as_root(docker=BARE)
    assert one(facts, "docker-runtime", Needs(NIM_PAGE)).mends == ("nvidia-runtime-missing",)


def test_a_configuration_that_names_the_runtime_already_is_only_read_again():
    config = DaemonConfig("/etc/docker/daemon.json", exists=True, runtimes=("nvidia",))
    remedy = one(no_way_for_gpus(docker={"config": config}), "docker-reload")
    assert remedy.lines == ("systemctl reload docker",)
    assert (remedy.backs_up, remedy.runtime) == ((), "nvidia")
    assert set(remedy.mends) == {"docker-restart-pending", "gpu-runtime-missing"}


def cdi_off(**docker):
    spec = CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", NAMES, driver=DRIVER)
    return replace(no_way_for_gpus(docker={"cdi_spec_dirs": None, **docker}), cdi=(spec,))


def test_cdi_comes_with_a_restart():
    remedy = one(cdi_off(), "docker-cdi")
    assert remedy.lines == (
        "nvidia-ctk runtime configure --runtime=docker --config=/etc/docker/daemon.json --cdi.enabled",
        "systemctl restart docker",
    )
    assert (remedy.risk, remedy.refused) == ("docker-restart", "")
    assert "docker-runtime" not in {r.id for r in plan(cdi_off())}


@pytest.mark.parametrize(
    ("containers", "reason"),
    [
        (None, "not known whether containers with GPUs run"),
        ((ContainerFacts("1", "vllm", gpus=True), ContainerFacts("2", "web", gpus=False)), "would stop: vllm"),
        ((ContainerFacts("1", "one-of-many"),), "one-of-many"),
    ],
)
def test_nothing_restarts_docker_under_gpu_containers_or_where_that_is_not_known(containers, reason):
    remedy = one(cdi_off(containers=containers), "docker-cdi")
    assert reason in remedy.refused


def test_containers_without_gpus_do_not_forbid_a_restart_and_the_risk_says_so():
    remedy = one(cdi_off(containers=(ContainerFacts("2", "web", gpus=False),)), "docker-cdi")
    assert (remedy.refused, remedy.risk) == ("", "docker-restart")


def test_a_toolkit_that_would_write_another_key_does_not_turn_cdi_on():
    facts = host(cdi_off(), toolkit={"version": "1.14.4"})
    assert "docker-cdi" not in {r.id for r in plan(facts)}
    assert "gpu-runtime-missing" in {f.id for f in left_to_you(run_checks(facts, Needs(KIMI)).findings, plan(facts))}


def test_a_pending_restart_is_done_and_a_pending_reload_is_not_a_restart():
    path = "/etc/docker/daemon.json"
    cgroups = DaemonConfig(path, exists=True, runtimes=("nvidia",), cgroup_driver="cgroupfs")
    assert one(as_root(docker={"config": cgroups}), "docker-restart").lines == ("systemctl restart docker",)
    restore = DaemonConfig(path, exists=True, runtimes=("nvidia",), live_restore=True)
    assert one(as_root(docker={"config": restore}), "docker-reload").lines == ("systemctl reload docker",)


@pytest.mark.parametrize(
    ("docker", "reason"),
    [
        ({"kind": "snap", "runtimes": ("nvidia", "runc"), "missing_runtimes": ("nvidia",)}, "snap"),
        ({"kind": "other"}, "not Docker Engine"),
        ({"endpoint": "tcp://127.0.0.1:2376"}, "not this host's service docker"),
        ({"config": None}, "not known which file"),
        ({"config": DaemonConfig("/e/daemon.json", exists=True, problem="line 3: ,")}, "corrected by hand"),
        ({"config": DaemonConfig("/e/daemon.json", exists=True, repeated=("runtimes",))}, "runtimes is in it twice"),
        ({"rootless": True, "endpoint": "unix:///run/user/1000/docker.sock"}, "another user"),
    ],
)
def test_a_docker_that_is_not_the_hosts_own_service_is_not_touched(docker, reason):
    assert reason in one(no_way_for_gpus(docker=docker), "docker-runtime").refused


def test_a_docker_of_another_machine_has_no_remedy_here():
    assert plan(no_way_for_gpus(docker={"endpoint": "tcp://10.0.0.7:2376"})) == ()


def test_the_mode_cdi_is_a_persons_choice_and_not_written_for_them():
    lost = as_root(toolkit={"ctk": "/usr/bin/nvidia-ctk", "mode": "legacy"}, cdi=())
    assert "gpus-lost-on-reload" in {f.id for f in run_checks(lost, Needs(KIMI)).findings}
    assert plan(lost) == ()
    needed = as_root(toolkit={"ctk": "/usr/bin/nvidia-ctk", "mode": "cdi"}, cdi=())
    assert one(needed, "cdi-generate").lines == ("nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",)


def test_docker_desktop_is_left_to_its_settings():
    facts = as_root(docker={**BARE, "kind": "desktop"}, system={"wsl": True})
    assert "own settings" in one(facts, "docker-runtime", Needs(NIM_PAGE)).refused


def test_rootless_docker_is_its_users_own():
    docker = {"rootless": True, "endpoint": "unix:///run/user/1000/docker.sock"}
    docker["config"] = DaemonConfig("/home/me/.config/docker/daemon.json", exists=False)
    facts = host(no_way_for_gpus(docker=docker), system={"uid": 1000, "groups": ("me",)})
    remedy = one(facts, "docker-runtime")
    assert remedy.refused == ""
    assert remedy.lines == (
        "nvidia-ctk runtime configure --runtime=docker --config=/home/me/.config/docker/daemon.json",
        "systemctl --user reload docker",
    )


def test_others_than_root_see_sudo_and_nothing_is_applied_for_them():
    facts = host(no_way_for_gpus(), system={"uid": 1000, "groups": ("me", "docker")})
    remedy = one(facts, "docker-runtime")
    assert all(line.startswith("sudo ") for line in remedy.lines)
    assert "needs root" in remedy.refused


def spec(path, driver=DRIVER, missing=()):
    return CdiSpec(path, "nvidia.com/gpu", NAMES, driver=driver, missing=missing)


@pytest.mark.parametrize(
    "stale",
    [
        spec("/etc/cdi/nvidia.yaml", "570.1.2"),
        spec("/etc/cdi/nvidia.yaml", missing=("/usr/lib/gone.so",)),
        CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", ("0", "all")),
        CdiSpec("/etc/cdi/nvidia.yaml", problem="line 1"),
    ],
    ids=["driver", "file", "gpu", "unreadable"],
)
def test_a_stale_specification_is_written_anew(stale):
    remedy = one(as_root(cdi=(stale,)), "cdi-generate")
    assert remedy.lines == ("nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",)
    assert (remedy.backs_up, remedy.risk, remedy.refused) == (("/etc/cdi/nvidia.yaml",), "none", "")


def test_of_two_specifications_the_one_of_another_driver_is_set_aside():
    facts = as_root(cdi=(spec("/etc/cdi/a.yaml", "570.1.2"), spec("/etc/cdi/b.yaml")))
    remedy = one(facts, "cdi-set-aside")
    assert remedy.lines == ("mv /etc/cdi/a.yaml /etc/cdi/a.yaml.disabled",)
    assert "cdi-generate" not in {r.id for r in plan(facts)}


@pytest.mark.parametrize("driver", [DRIVER, "570.1.2"])
def test_of_two_equal_specifications_a_person_chooses(driver):
    facts = as_root(cdi=(spec("/etc/cdi/a.yaml", driver), spec("/etc/cdi/b.yaml", driver)))
    findings = run_checks(facts, Needs(KIMI)).findings
    assert "cdi-set-aside" not in {r.id for r in plan(facts)}
    assert "cdi-duplicated" in {f.id for f in left_to_you(findings, plan(facts))}


def test_nothing_is_written_by_a_toolkit_that_is_not_there():
    facts = as_root(cdi=(spec("/etc/cdi/nvidia.yaml", "570.1.2"),), toolkit={"ctk": None})
    assert plan(facts) == ()


def test_the_toolkits_own_setting_follows_the_kind_of_docker():
    toolkit = {"ctk": "/usr/bin/nvidia-ctk", "config": "/etc/n/config.toml", "mode": "legacy", "no_cgroups": True}
    remedy = one(as_root(toolkit=toolkit), "toolkit-no-cgroups")
    assert remedy.lines[0].endswith("--in-place --set nvidia-container-cli.no-cgroups=false")
    assert remedy.backs_up == ("/etc/n/config.toml",)


def test_persistence_is_turned_on_for_the_gpus_that_lack_it():
    cards = (gpu(0), gpu(1, persistence=False), *gpus(8)[2:])
    assert one(as_root(gpus=inventory(*cards)), "persistence-on").lines == ("nvidia-smi -pm 1 -i 1",)
    every = as_root(gpus=inventory(*gpus(8, persistence=False)))
    assert one(every, "persistence-on").lines == ("nvidia-smi -pm 1",)


def test_the_fabric_manager_is_started_where_it_is_installed():
    stopped = as_root(fabric_manager={"service": "inactive"})
    assert one(stopped, "start-fabric-manager").lines == ("systemctl enable --now nvidia-fabricmanager",)
    absent = as_root(fabric_manager={"service": "absent"}, gpus=inventory(*gpus(8, fabric=None)))
    assert "fabric-manager-down" in {f.id for f in run_checks(absent, Needs(KIMI)).findings}
    assert plan(absent) == ()


def test_the_module_of_the_fabric_manager_is_loaded_before_it():
    cards = gpus(8, name="NVIDIA B200", fabric=None, compute_capability="10.0")
    facts = as_root(gpus=inventory(*cards), fabric_manager={"service": "failed"})
    remedy = one(facts, "load-ib-umad")
    assert remedy.commands[0] == ("sh", "-c", "echo ib_umad > /etc/modules-load.d/ib_umad.conf")
    assert remedy.commands[1:] == (("modprobe", "ib_umad"), ("systemctl", "restart", "nvidia-fabricmanager"))
    assert shlex.split(remedy.lines[0]) == list(remedy.commands[0])


def test_logins_are_closed_without_root():
    facts = host(credentials={"plaintext": ("nvcr.io",), "config_mode": "644"})
    remedy = one(facts, "close-logins", docker_config="/home/me/.docker/config.json")
    assert (remedy.lines, remedy.refused) == (("chmod 600 /home/me/.docker/config.json",), "")


def closed_cache(**changes):
    return {"gid": 100, "mode": "0755", "group_writable": False, "uid": 7, **changes}


def test_the_cache_is_mended_by_its_own_verb_and_last():
    facts = replace(no_way_for_gpus(), cache=host(cache=closed_cache()).cache)
    assert [r.id for r in plan(facts)] == ["docker-runtime", "cache-init"]
    remedy = one(facts, "cache-init")
    assert (remedy.lines, remedy.risk) == (("nimctl cache init /data/nim",), "permissions")
    with_lists = one(as_root(cache=closed_cache(acl=True)), "cache-init")
    assert with_lists.lines[0] == "setfacl -R -b /data/nim"


def test_a_cache_that_no_chmod_mends_is_left_to_a_person():
    facts = as_root(cache=closed_cache(disk=replace(HEALTHY.cache.disk, read_only=True)))
    assert plan(facts) == ()
    assert "cache-not-writable" in {f.id for f in left_to_you(run_checks(facts, Needs(KIMI)).findings, ())}


def test_a_member_of_group_0_may_mend_the_cache_and_others_are_told_how():
    mine = host(cache=closed_cache(uid=1000), system={"groups": ("root", "me")})
    assert one(mine, "cache-init").refused == ""
    theirs = one(host(cache=closed_cache()), "cache-init")
    assert "needs root" in theirs.refused
    assert theirs.lines == ("sudo nimctl cache init /data/nim",)


def test_drivers_and_reboots_are_left_to_a_person():
    facts = as_root(gpus=inventory(*gpus(8), driver="550.1.2", cuda="12.4"))
    findings = run_checks(facts, Needs(KIMI)).findings
    assert plan(facts) == ()
    assert "driver-too-old" in {f.id for f in left_to_you(findings, ())}
