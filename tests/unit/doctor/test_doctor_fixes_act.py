"""Applying remedies: what is changed, what is put back, and what is said, with real files and real programs."""

import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nimctl.core import command
from nimctl.core.cache import apply_init
from nimctl.core.errors import NimctlError
from nimctl.core.facts import ContainerFacts, DockerFacts
from nimctl.doctor.fixes import Remedy
from nimctl.doctor.fixes.act import Tools, apply

STAMP = "20260102T030405Z"
STANDIN = Path(__file__).parents[2] / "lib" / "lab" / "standins" / "nvidia-ctk"
UP = DockerFacts("ok", runtimes=("nvidia", "runc"), containers=())


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "etc" / "daemon.json"
    path.parent.mkdir()
    path.write_text('{"data-root": "/data", "features": {"containerd-snapshotter": true}}\n')
    path.chmod(0o640)
    return path


def ctk(config, *more):
    return (sys.executable, str(STANDIN), "runtime", "configure", "--runtime=docker", f"--config={config}", *more)


def runtime_remedy(config, *, reload=("true",), before=None, docker="reload"):
    commands = (before or ctk(config), reload)
    return Remedy("docker-runtime", ("x",), commands, "it", "docker-reload", (str(config),), "", docker, "nvidia")


def act(*remedies, docker=UP, **tools):
    said = []
    found = apply(remedies, Tools(STAMP, docker=lambda: docker, docker_limit=0.0, **tools), said.append)
    return found, said


def copies(config):
    return sorted(path.name for path in config.parent.iterdir() if path.name != config.name)


def test_the_configuration_is_kept_beside_itself_before_it_is_changed(config):
    before, owner = config.read_text(), config.stat()
    (outcome,), said = act(runtime_remedy(config))
    assert outcome.applied, outcome.error
    after = json.loads(config.read_text())
    assert after["runtimes"]["nvidia"]["path"].endswith("nvidia-container-runtime")
    assert after["features"] == {"containerd-snapshotter": True}
    assert copies(config) == [f"daemon.json.nimctl-{STAMP}.bak"]
    copy = config.with_name(f"daemon.json.nimctl-{STAMP}.bak")
    assert copy.read_text() == before
    assert (stat.S_IMODE(copy.stat().st_mode), copy.stat().st_uid, copy.stat().st_gid) == (
        0o640,
        owner.st_uid,
        owner.st_gid,
    )
    assert said[-1] == "true"


def test_a_command_that_fails_puts_the_configuration_back_and_says_what_was_not_run(config):
    before = config.read_text()
    script = f"echo broken > {config}; echo nvapi-CANARY0123456789 is refused >&2; exit 3"
    (outcome,), said = act(runtime_remedy(config, before=("sh", "-c", script)))
    assert config.read_text() == before
    assert stat.S_IMODE(config.stat().st_mode) == 0o640
    error = outcome.error
    assert (error.id, outcome.applied) == ("fix-failed", False)
    assert "it ended with 3: *** is refused" in error.cause
    assert f"put back as it was: {config}" in error.evidence
    assert "not run: true" in error.evidence
    assert "CANARY0123456789 is" not in str(error.to_json()["evidence"]) + error.cause
    assert said == [said[0]]  # Docker was not asked, and need not be asked again


def test_a_configuration_that_was_absent_is_absent_again(tmp_path):
    config = tmp_path / "daemon.json"
    (outcome,), _ = act(runtime_remedy(config, reload=("false",)))
    assert outcome.error.id == "fix-failed"
    assert list(tmp_path.iterdir()) == []


def test_a_docker_that_does_not_come_back_gets_its_configuration_back(config, tmp_path):
    before, log = config.read_text(), tmp_path / "reloads"
    reload = ("sh", "-c", f"cat {config} >> {log}; echo === >> {log}")
    down = DockerFacts("unreachable", "connection refused", containers=())
    (outcome,), _ = act(runtime_remedy(config, reload=reload), docker=down)
    assert config.read_text() == before
    assert outcome.error.cause == "connection refused"
    first, second, _ = log.read_text().split("===\n")
    assert "nvidia-container-runtime" in first
    assert second == before  # the daemon was told to read the old one again
    assert any(line.startswith("done with the file as it was") for line in outcome.error.evidence)


def test_a_docker_that_does_not_learn_the_runtime_is_a_failure(config):
    (outcome,), _ = act(runtime_remedy(config), docker=replace(UP, runtimes=("runc",)))
    assert outcome.error.cause == "it answers, and does not know the runtime nvidia"


def test_a_toolkit_that_overwrites_other_features_is_caught_before_docker_reads_it(config):
    before = config.read_text()
    remedy = runtime_remedy(config, before=ctk(config, "--cdi.enabled"))
    (outcome,), said = act(remedy)
    assert outcome.error.message.endswith("lost a setting: features.containerd-snapshotter")
    assert config.read_text() == before
    assert "true" not in said


def test_what_a_link_points_to_is_kept_and_the_link_stays(config, tmp_path):
    link = tmp_path / "daemon.json"
    link.symlink_to(config)
    (outcome,), _ = act(runtime_remedy(link, reload=("false",)))
    assert outcome.error
    assert link.is_symlink()
    assert "nvidia" not in config.read_text()


def test_a_restart_is_refused_when_a_container_with_gpus_was_started_meanwhile(config):
    before = config.read_text()
    busy = replace(UP, containers=(ContainerFacts("1", "vllm", gpus=True),))
    other = Remedy("persistence-on", ("y",), (("true",),), "it", "gpu-setting")
    (refused, done), said = act(runtime_remedy(config, docker="restart"), other, docker=busy)
    assert (refused.error.id, refused.applied) == ("fix-refused", False)
    assert "vllm" in refused.error.cause
    assert done.applied  # it rests on nothing that was refused
    assert said == ["true"]
    assert (config.read_text(), copies(config)) == (before, [])


def test_after_a_failure_nothing_more_is_tried(tmp_path):
    mark = tmp_path / "mark"
    first = Remedy("load-driver", ("x",), (("modprobe-that-is-not-there", "nvidia"),), "it", "kernel-module")
    second = Remedy("persistence-on", ("y",), (("touch", str(mark)),), "it", "gpu-setting")
    (failed, left), _ = act(first, second)
    assert failed.error.cause == "there is no program modprobe-that-is-not-there"
    assert (left.applied, left.error, mark.exists()) == (False, None, False)


def test_what_was_changed_by_commands_before_the_one_that_failed_is_said(tmp_path):
    mark = tmp_path / "mark"
    remedy = Remedy("r", ("x",), (("touch", str(mark)), ("false",), ("true",)), "it", "service")
    (outcome,), _ = act(remedy)
    assert outcome.error.evidence == (f"changed: touch {mark}", "not run: true")


def test_a_refused_remedy_is_not_touched(tmp_path):
    mark = tmp_path / "mark"
    (outcome,), said = act(Remedy("r", ("x",), (("touch", str(mark)),), "it", "none", refused="not now"))
    assert (outcome.applied, outcome.error, said, mark.exists()) == (False, None, [], False)


def test_ctrl_c_puts_back_what_was_changed(config):
    before = config.read_text()

    def run(argv):
        if argv == ("true",):
            raise KeyboardInterrupt
        return command.run(argv)

    with pytest.raises(KeyboardInterrupt):
        act(runtime_remedy(config), run=run)
    assert config.read_text() == before


def test_a_program_that_hangs_is_ended(tmp_path):
    def run(argv):
        return command.run(argv, timeout=0.2)

    (outcome,), _ = act(Remedy("r", ("x",), (("sleep", "60"),), "it", "none"), run=run)
    assert "did not end within" in outcome.error.cause


def test_the_cache_is_prepared_in_this_process(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o755)
    remedy = Remedy("cache-init", ("x",), (("nimctl", "cache", "init", str(cache)),), "it", "permissions")
    (outcome,), _ = act(remedy)
    if os.geteuid() == 0:
        assert outcome.applied, outcome.error
        assert stat.S_IMODE(cache.stat().st_mode) == 0o2770
        assert apply_init(cache).regrouped == 0


def test_a_cache_that_may_not_be_changed_keeps_its_own_way_out():
    def refuse(_):
        raise NimctlError("cache-not-writable", "no", cause="not yours", fix="As an administrator: chgrp")

    remedy = Remedy("cache-init", ("x",), (("sudo", "nimctl", "cache", "init", "/c"),), "it", "permissions")
    (outcome,), _ = act(remedy, init_cache=refuse)
    assert (outcome.error.id, outcome.error.fix) == ("fix-failed", "As an administrator: chgrp")
    assert "[cache-not-writable]" in outcome.error.cause
