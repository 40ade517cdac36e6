"""The container toolkit: there, new enough, configured, and the ways of GPUs into containers that it opens."""

import pytest

from nimctl.core.facts import CdiSpec
from nimctl.core.injection import injection_modes, ways
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import HEALTHY, KIMI, NIM_PAGE, gpus, host, inventory, judge, verdicts

SPEC = CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", (*map(str, range(8)), "all"))
NO_HOOK = {"hook": None}
NO_RUNTIME = {"runtimes": ("runc",)}
CONFIG = "/etc/nvidia-container-runtime/config.toml"


# The toolkit itself


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.19.1", ("pass", "toolkit")),
        ("1.20.0-rc.1", ("pass", "toolkit")),
        ("1.14.0", ("pass", "toolkit")),
        ("1.14", ("pass", "toolkit")),
        ("1.18.1-0ubuntu1.2", ("pass", "toolkit")),
        ("1.13.5", ("fail", "toolkit-too-old")),
        ("1.9.0", ("fail", "toolkit-too-old")),
        ("unknown", ("unknown", "toolkit")),
    ],
)
def test_toolkit_version(version, expected):
    assert verdicts(judge("toolkit", host(toolkit={"version": version}))) == [expected]


def test_no_toolkit_fails_unless_gpus_get_in_anyway():
    nothing = host(toolkit={"version": None, "hook": None}, docker=NO_RUNTIME, cdi=())
    assert verdicts(judge("toolkit", nothing)) == [("fail", "toolkit-missing")]
    for way in ({"docker": HEALTHY.docker}, {"cdi": (SPEC,)}, {"toolkit": {"hook": "/usr/bin/hook"}}):
        assert verdicts(judge("toolkit", host(nothing, **way))) == [("unknown", "toolkit")]


def test_a_toolkit_that_could_not_be_looked_for_is_not_said_to_be_missing():
    nothing = host(
        toolkit={"version": None, "hook": None}, docker=NO_RUNTIME, cdi=(), problems=("toolkit: no answer in time",)
    )
    assert verdicts(judge("toolkit", nothing)) == [("unknown", "toolkit")]
    assert verdicts(judge("gpu-runtime", nothing)) == [("unknown", "gpu-runtime")]


# Its configuration


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, ("pass", "toolkit-configured")),
        ({"docker": NO_RUNTIME}, ("pass", "toolkit-configured")),
        ({"docker": NO_RUNTIME, "toolkit": {"version": None}}, ("skip", "toolkit-configured")),
        ({"docker": {"missing_runtimes": ("nvidia",)}}, ("warn", "nvidia-runtime-broken")),
        ({"toolkit": {"config": CONFIG, "config_problem": "line 3"}}, ("warn", "toolkit-config-invalid")),
        (
            {"toolkit": {"config": CONFIG, "config_problem": "this user may not read it"}},
            ("unknown", "toolkit-configured"),
        ),
        (
            {"docker": {"rootless": True}, "toolkit": {"config": CONFIG, "mode": "legacy"}},
            ("warn", "toolkit-no-cgroups"),
        ),
        (
            {"docker": {"rootless": True}, "toolkit": {"config": CONFIG, "mode": "legacy", "no_cgroups": True}},
            ("pass", "toolkit-configured"),
        ),
        # CDI on the fly needs no hook.
        ({"docker": {"rootless": True}, "toolkit": {"config": CONFIG}}, ("pass", "toolkit-configured")),
        (
            {"toolkit": {"config": CONFIG, "version": "1.17.8", "no_cgroups": True}},
            ("warn", "toolkit-no-cgroups"),
        ),
    ],
)  # fmt: skip
def test_configuration_of_the_toolkit(parts, expected):
    assert verdicts(judge("toolkit-configured", host(**parts))) == [expected]


def test_a_page_that_uses_the_nvidia_runtime_says_when_there_is_none():
    (finding,) = judge("toolkit-configured", host(docker=NO_RUNTIME), Needs(recipe=NIM_PAGE))
    assert (finding.verdict, finding.id, finding.severity) == ("warn", "nvidia-runtime-missing", "info")


# The ways in


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, ("runtime", "gpus", "cdi")),
        ({"docker": NO_RUNTIME}, ("gpus", "cdi")),
        ({"docker": NO_RUNTIME, "toolkit": NO_HOOK}, ("cdi",)),
        ({"docker": {"cdi_spec_dirs": None}}, ("runtime", "gpus")),
        ({"docker": {"cdi_spec_dirs": ("/run/elsewhere",)}}, ("runtime", "gpus")),
        ({"docker": {"cdi_devices": ("vendor.com/net=eth0",)}}, ("runtime", "gpus")),
        ({"docker": {"missing_runtimes": ("nvidia",)}}, ("gpus", "cdi")),
        ({"docker": {"kind": "podman"}}, ()),
        ({"docker": {"kind": "desktop"}}, ()),
        ({"toolkit": {"mode": "cdi"}}, ("runtime", "cdi")),
        ({"toolkit": {"mode": "legacy"}}, ("runtime", "gpus", "cdi")),
        ({"toolkit": {"mode": "legacy", "no_cgroups": True}}, ("cdi",)),
        ({"toolkit": {"no_cgroups": True}}, ("runtime", "cdi")),
        ({"toolkit": {"mode": "legacy", "config": CONFIG}, "docker": {"rootless": True}}, ("cdi",)),
        ({"toolkit": {"config": CONFIG}, "docker": {"rootless": True}}, ("runtime", "cdi")),
        ({"cdi": (CdiSpec("/etc/cdi/nvidia.yaml", problem="not YAML"),)}, ("runtime", "gpus")),
        ({"cdi": (CdiSpec("/etc/cdi/other.yaml", "example.com/net", ("all",)),)}, ("runtime", "gpus")),
        ({"cdi": (CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", ()),)}, ("runtime", "gpus")),
    ],
)
def test_ways_of_gpus_into_containers(parts, expected):
    facts = host(**parts)
    assert injection_modes(facts) == expected
    assert [way.mode for way in ways(facts)] == ["runtime", "gpus", "cdi"]
    assert all(way.problem for way in ways(facts) if way.mode not in expected)


def test_the_ways_that_are_open_are_named_and_the_others_have_a_reason():
    (finding,) = judge("gpu-runtime", HEALTHY)
    assert finding.verdict == "pass"
    assert "--runtime=nvidia" in finding.title
    assert "--device nvidia.com/gpu" in finding.title
    (finding,) = judge("gpu-runtime", host(toolkit=NO_HOOK))
    assert finding.evidence == (
        "not by the runtime hook (--gpus): nvidia-container-runtime-hook is not there",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "fix"),
    [
        ({"cdi": ()}, "sudo nvidia-ctk runtime configure --runtime=docker"),
        ({"docker": {**NO_RUNTIME, "cdi_spec_dirs": None}}, '{"features": {"cdi": true}}'),
    ],
)
def test_no_way_for_gpus(parts, fix):
    (finding,) = judge("gpu-runtime", host(**{"docker": NO_RUNTIME, "toolkit": NO_HOOK, **parts}))
    assert (finding.verdict, finding.id) == ("fail", "gpu-runtime-missing")
    assert fix in finding.fix
    assert len(finding.evidence) == 3


def test_a_missing_toolkit_is_said_once():
    facts = host(docker=NO_RUNTIME, cdi=(), toolkit={"version": None, "hook": None})
    (toolkit,), (runtime,) = judge("toolkit", facts), judge("gpu-runtime", facts)
    assert (toolkit.id, runtime.verdict) == ("toolkit-missing", "skip")
    assert "install-guide" in toolkit.fix


@pytest.mark.parametrize(
    ("docker", "toolkit", "fix"),
    [
        ({"kind": "snap"}, {}, "sudo snap remove docker"),
        ({"kind": "desktop"}, {}, "docker context use default"),
        ({"rootless": True}, {"config": "/etc/config.toml", "mode": "legacy"}, "no-cgroups=true"),
        ({"rootless": True}, NO_HOOK, "systemctl --user reload docker"),
        ({"missing_runtimes": ("nvidia",), "runtimes": ("nvidia",)}, {"version": None, "hook": None}, "install-guide"),
    ],
)
def test_what_opens_a_way_depends_on_the_kind_of_docker(docker, toolkit, fix):
    facts = host(docker={**NO_RUNTIME, **docker}, toolkit=toolkit, cdi=())
    assert fix in next(f for f in judge("gpu-runtime", facts) if f.verdict == "fail").fix


def test_a_configuration_that_cannot_be_understood_closes_runtime_and_hook_but_not_cdi():
    broken = {"config": "/etc/config.toml", "config_problem": "line 7: a quote is open"}
    assert injection_modes(host(toolkit=broken)) == ("cdi",)
    (finding,) = judge("gpu-runtime", host(toolkit=broken, cdi=()))
    assert finding.verdict == "fail" and "line 7" in finding.cause and "nvidia-ctk config default" in finding.fix
    unread = {**broken, "config_problem": "this user may not read it"}
    assert injection_modes(host(toolkit=unread)) == ("runtime", "gpus", "cdi")


def test_a_way_that_is_set_up_and_broken_is_said_where_another_works():
    docker = {**NO_RUNTIME, "rootless": False}
    broken = host(docker=docker, toolkit={"mode": "csv"})
    passes, doubt = judge("gpu-runtime", broken)
    assert (passes.verdict, doubt.id, doubt.severity) == ("pass", "gpu-runtime-doubtful", "info")
    assert "its hook refuses" in doubt.cause


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"docker": {"missing_runtimes": ("nvidia",)}}, "nvidia-runtime-broken"),
        ({"toolkit": {"mode": "legacy", "config": CONFIG, "no_cgroups": True}}, "toolkit-no-cgroups"),
        ({"toolkit": {"config": CONFIG, "config_problem": "line 3"}}, "toolkit-config-invalid"),
    ],
)
def test_what_is_wrong_with_the_setup_is_said_once(parts, said):
    """Where another way is open it is a warning; where it closes the last way it is why `gpu-runtime` fails."""
    opened = host(**parts)
    assert verdicts(judge("toolkit-configured", opened)) == [("warn", said)]
    assert verdicts(judge("gpu-runtime", opened)) == [("pass", "gpu-runtime")]
    closed = host(opened, cdi=(), toolkit={"hook": None})
    assert verdicts(judge("toolkit-configured", closed)) == [("skip", "toolkit-configured")]
    assert verdicts(judge("gpu-runtime", closed)) == [("fail", "gpu-runtime-missing")]
    unseen = host(closed, problems=("cdi: no answer",))
    assert verdicts(judge("toolkit-configured", unseen)) == [("warn", said)]
    assert verdicts(judge("gpu-runtime", unseen)) == [("unknown", "gpu-runtime")]


def test_the_mode_cdi_without_a_specification_closes_the_runtime_unless_nobody_could_look():
    alone = host(toolkit={"mode": "cdi"}, cdi=())
    assert injection_modes(alone) == ()
    (finding,) = judge("gpu-runtime", alone)
    assert finding.id == "gpu-runtime-missing"
    assert finding.fix == "Write one: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    assert "runtime" in injection_modes(host(alone, problems=("cdi: no answer in time",)))


def test_the_toolkit_is_made_known_by_a_reload_and_cdi_by_a_restart_that_says_what_it_ends():
    closed = host(docker=NO_RUNTIME, toolkit=NO_HOOK, cdi=())
    (finding,) = judge("gpu-runtime", closed)
    assert "&& sudo systemctl reload docker`; running containers go on" in finding.fix
    (finding,) = judge("toolkit", host(toolkit={"version": "1.13.0"}))
    assert "reload docker" in finding.fix and "restart" not in finding.fix
    cdi_off = host(docker={**NO_RUNTIME, "cdi_spec_dirs": None, "live_restore": None}, toolkit=NO_HOOK)
    (finding,) = judge("gpu-runtime", cdi_off)
    assert "restart docker`; running containers stop, unless live-restore is on" in finding.fix
    assert "mode=cdi" not in finding.fix
    rootless = host(cdi_off, docker={"rootless": True, "config": None})
    (finding,) = judge("gpu-runtime", rootless)
    assert "~/.config/docker/daemon.json" in finding.fix and "`systemctl --user restart docker`" in finding.fix


def test_paths_with_spaces_are_quoted():
    odd = host(toolkit={"config": "/srv/my toolkit/config.toml", "config_problem": "line 3"})
    (finding,) = judge("toolkit-configured", odd)
    assert "--output='/srv/my toolkit/config.toml'" in finding.fix


def test_a_stale_specification_fails_when_it_is_the_only_way():
    stale = (CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", ("0", "1", "all")),)
    only = host(cdi=stale, docker=NO_RUNTIME, toolkit=NO_HOOK, gpus=inventory(*gpus(3)))
    (finding,) = judge("gpu-runtime", only)
    assert (finding.verdict, finding.id) == ("fail", "gpu-runtime-missing")
    assert finding.title == "the CDI specification does not know GPU 2"
    assert verdicts(judge("cdi", only)) == [("skip", "cdi")]  # a cause fails once
    assert verdicts(judge("gpu-runtime", host(cdi=stale))) == [("pass", "gpu-runtime")]
    assert verdicts(judge("gpu-runtime", only, Needs(recipe=KIMI, gpus="2"))) == [("pass", "gpu-runtime")]
