"""Remedies for Docker, NVIDIA's toolkit in it, and CDI. Pure.

A reload (SIGHUP) is preferred to a restart: it brings new runtimes, and containers go on. CDI comes with a restart.
https://docs.docker.com/reference/cli/dockerd/#configuration-reload-behavior and
https://github.com/moby/moby/blob/v24.0.0/daemon/reload.go
"""

import re
from collections.abc import Sequence
from typing import Literal

from nimctl.core import cdi
from nimctl.core.facts import CdiSpec, ContainerFacts, HostFacts
from nimctl.doctor.fixes.model import Remedy, as_root, without_root
from nimctl.doctor.model import Finding
from nimctl.doctor.versions import at_least

_STANDARD = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")
_OTHER_KINDS = {
    "desktop": "Docker Desktop keeps its configuration in its own settings",
    "snap": "Docker is a snap, which brings a toolkit and a configuration of its own",
}
_CONFIGURE = "nvidia-ctk runtime configure"
_ENABLE_CDI = "Turn CDI on"
_GENERATE = re.compile(r"nvidia-ctk cdi generate --output=('[^']+'|[^\s`]+)")
# Its advice names the same command as one of several steps, after which `--gpus` ends: a person's choice.
_NOT_ALONE = "gpus-lost-on-reload"
# Until then the option wrote another key: https://github.com/NVIDIA/nvidia-container-toolkit/pull/339
_CAN_ENABLE_CDI = "1.14.5"


def remedies(findings: Sequence[Finding], facts: HostFacts) -> list[Remedy]:
    """The toolkit's own settings, Docker's configuration with at most one restart, then CDI specifications."""
    moved = _duplicates(findings, facts)
    aside = {path for remedy in moved for path in remedy.backs_up}
    docker = _docker(findings, facts)
    return [*_no_cgroups(findings, facts), *docker, *moved, *_generate(findings, facts, aside)]


def _docker(findings: Sequence[Finding], facts: HostFacts) -> list[Remedy]:
    configure = [f for f in findings if _CONFIGURE in f.fix and f.check != "toolkit"]
    enable = [f for f in findings if f.fix.startswith(_ENABLE_CDI)]
    pending = [f for f in findings if f.id == "docker-restart-pending"]
    broken = "nvidia" not in facts.docker.runtimes or "nvidia" in facts.docker.missing_runtimes
    config = facts.docker.config
    path = config.path if config else "/etc/docker/daemon.json"
    base = ("nvidia-ctk", "runtime", "configure", "--runtime=docker", f"--config={path}")
    if enable and facts.toolkit.ctk and at_least(facts.toolkit.version, _CAN_ENABLE_CDI):
        command = _for_owner(facts, *base, "--cdi.enabled")
        changes = f"{path} gets features.cdi and the runtime nvidia"
        return [_touching(facts, "docker-cdi", [*enable, *pending], (command,), changes, restart=True, backs_up=path)]
    if restart := [f for f in pending if "reload docker" not in f.fix]:
        changes = f"Docker takes over what {path} says"
        return [_touching(facts, "docker-restart", restart, (), changes, restart=True)]
    if config and "nvidia" in (config.runtimes or ()) and "nvidia" not in facts.docker.runtimes:
        changes = f"Docker takes over what {path} says"
        return [_touching(facts, "docker-reload", [*pending, *configure], (), changes, restart=False)]
    if configure and broken and facts.toolkit.ctk:
        changes = f"{path} gets the runtime nvidia"
        commands = (_for_owner(facts, *base),)
        return [
            _touching(facts, "docker-runtime", [*configure, *pending], commands, changes, restart=False, backs_up=path)
        ]
    if pending:
        changes = f"Docker takes over what {path} says"
        return [_touching(facts, "docker-reload", pending, (), changes, restart=False)]
    return []


def _touching(
    facts: HostFacts,
    name: str,
    mends: Sequence[Finding],
    commands: tuple[tuple[str, ...], ...],
    changes: str,
    *,
    restart: bool,
    backs_up: str = "",
) -> Remedy:
    """A remedy whose last command makes Docker read its configuration."""
    verb: Literal["reload", "restart"] = "restart" if restart else "reload"
    unit = ("systemctl", "--user", verb, "docker") if facts.docker.rootless else ("systemctl", verb, "docker")
    listed = (facts.docker.config.runtimes if facts.docker.config else None) or ()
    refused = not_the_service(facts) or (busy(facts) if restart else "")
    return Remedy(
        name,
        tuple(dict.fromkeys(f.id for f in mends)),
        (*commands, _for_owner(facts, *unit)),
        changes,
        "docker-restart" if restart else "docker-reload",
        (backs_up,) if backs_up else (),
        refused,
        verb,
        "nvidia" if commands or "nvidia" in listed else "",
    )


def _for_owner(facts: HostFacts, *argv: str) -> tuple[str, ...]:
    """The command for whom the daemon belongs to: root, or the caller where it is rootless."""
    return argv if facts.docker.rootless else as_root(facts, *argv)


def not_the_service(facts: HostFacts) -> str:
    """Why the configuration of this Docker is not nimctl's to change; empty where it is this host's own service."""
    docker = facts.docker
    if docker.kind != "engine":
        return _OTHER_KINDS.get(docker.kind or "", "what answers is not Docker Engine")
    if docker.config is None:
        return "it is not known which file configures this Docker"
    if docker.config.problem or docker.config.repeated:
        what = docker.config.problem or f"{', '.join(docker.config.repeated)} is in it twice"
        return f"{docker.config.path} has to be corrected by hand first: {what}"
    if docker.rootless:
        mine = re.fullmatch(rf"unix:///(?:var/)?run/user/{facts.system.uid}/docker\.sock", docker.endpoint or "")
        return "" if mine else "this rootless Docker belongs to another user"
    other = f"the Docker on {docker.endpoint} is not this host's service docker: reload it as it was started"
    return without_root(facts) if docker.endpoint in _STANDARD else other


def busy(facts: HostFacts) -> str:
    """Why Docker must not be restarted now: containers with GPUs run, or nobody knows."""
    return still_running(facts.docker.containers)


def still_running(containers: Sequence[ContainerFacts] | None) -> str:
    """The same for the containers that were seen running; None: they were not seen."""
    if containers is None:
        return "it is not known whether containers with GPUs run, and a restart would stop them"
    names = [c.name for c in containers if c.gpus is not False]
    if not names:
        return ""
    return f"containers that have GPUs, or may have, run and would stop: {', '.join(names[:8])}"


def _no_cgroups(findings: Sequence[Finding], facts: HostFacts) -> list[Remedy]:
    """Whether the toolkit's hook sets control groups, as the kind of Docker needs it."""
    mine = [f for f in findings if "nvidia-container-cli.no-cgroups=" in f.fix]
    if not mine or not facts.toolkit.ctk or not facts.toolkit.config:
        return []
    value = "true" if facts.docker.rootless else "false"
    setting = f"nvidia-container-cli.no-cgroups={value}"
    argv = as_root(
        facts, "nvidia-ctk", "config", f"--config-file={facts.toolkit.config}", "--in-place", "--set", setting
    )
    return [
        Remedy(
            "toolkit-no-cgroups",
            tuple(dict.fromkeys(f.id for f in mine)),
            (argv,),
            f"{facts.toolkit.config} sets {setting}",
            "none",
            (facts.toolkit.config,),
            without_root(facts),
        )
    ]


def _generate(findings: Sequence[Finding], facts: HostFacts, aside: set[str]) -> list[Remedy]:
    """CDI specifications that are written anew, as their findings say."""
    if not facts.toolkit.ctk:
        return []
    found: dict[str, list[str]] = {}
    for finding in findings:
        if finding.id != _NOT_ALONE and (match := _GENERATE.search(finding.fix)):
            found.setdefault(match[1].strip("'"), []).append(finding.id)
    return [
        Remedy(
            "cdi-generate",
            tuple(dict.fromkeys(ids)),
            (as_root(facts, "nvidia-ctk", "cdi", "generate", f"--output={path}"),),
            f"{path} describes the GPUs and the driver of now",
            "none",
            (path,),
            without_root(facts),
        )
        for path, ids in found.items()
        if path not in aside
    ]


def _duplicates(findings: Sequence[Finding], facts: HostFacts) -> list[Remedy]:
    """Of specifications that define the same GPUs, those that provably are not of this driver, set aside.

    Where none or several are of this driver, only a person knows which to keep.
    """
    mine = [f for f in findings if f.id == "cdi-duplicated"]
    if not mine:
        return []
    specs = {spec.path: spec for clash in cdi.resolve(facts).clashes.values() for spec in clash}
    stale = [spec for spec in specs.values() if _is_stale(spec, facts)]
    if len(stale) != len(specs) - 1:
        return []
    paths = tuple(spec.path for spec in stale)
    commands = tuple(as_root(facts, "mv", path, f"{path}.disabled") for path in paths)
    changes = f"Docker no longer reads {', '.join(paths)}: of another driver"
    return [Remedy("cdi-set-aside", (mine[0].id,), commands, changes, "none", paths, without_root(facts))]


def _is_stale(spec: CdiSpec, facts: HostFacts) -> bool:
    loaded = facts.nvidia_kernel.module or facts.gpus.driver
    return bool(spec.missing) or bool(spec.driver and loaded and spec.driver != loaded)
