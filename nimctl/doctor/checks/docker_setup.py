"""How Docker is set up: where it keeps images, who manages control groups, and what its configuration file says."""

import shlex
from collections.abc import Iterator

from nimctl.core import cdi
from nimctl.core.docker_state import config_path, restart, service_command
from nimctl.core.facts import DaemonConfig, DockerFacts, HostFacts
from nimctl.core.injection import engine_knows_devices, injection_modes
from nimctl.doctor.checks.scope import no_docker_wanted, no_engine, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, passed, skipped, unknown, warned
from nimctl.doctor.versions import at_least, is_rebuilt

# Versions of runc that need the links: opencontainers/runc#3671 (1.1.3 brought it), #3708 (1.1.7 mended it).
_RUNC_NEEDS_LINKS, _RUNC_MENDED = "1.1.3", "1.1.7"
_TROUBLE = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/troubleshooting.html"
_GENERATE = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
_MODE_CDI = "sudo nvidia-ctk config --in-place --set nvidia-container-runtime.mode=cdi"


def judge_image_store(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Where images lie decides what disk they need, and how they are pulled. The containerd store is the default of new
    installations from 29.0 on: https://docs.docker.com/engine/storage/containerd/
    """
    check, docker = "image-store", facts.docker
    if reason := no_docker_wanted(needs) or no_engine(facts):
        return [skipped(check, "image store", reason)]
    if docker.storage_driver is None:
        return [unknown(check, "image store", cause="Docker does not say how it keeps images")]
    if docker.containerd_store:
        note = "if a pull from nvcr.io says `Incorrect Repository Format`, pull by digest: NVIDIA/dcgm-exporter#659"
        return [passed(check, f"images lie in containerd's store ({docker.storage_driver})", evidence=(note,))]
    return [passed(check, f"images lie in Docker's store ({docker.storage_driver})")]


def judge_cgroup_driver(facts: HostFacts, needs: Needs) -> list[Finding]:
    """With systemd as the manager of control groups, a `systemctl daemon-reload`, which any package update may run,
    takes the GPUs from containers that got them by NVIDIA's hook; CDI and the driver cgroupfs are safe:
    https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/troubleshooting.html and
    https://github.com/NVIDIA/nvidia-container-toolkit/issues/48
    """
    check, driver = "cgroup-driver", facts.docker.cgroup_driver
    if reason := no_docker_wanted(needs) or no_gpu_wanted(needs) or no_engine(facts):
        return [skipped(check, "control groups", reason)]
    if driver is None:
        return [unknown(check, "control groups", cause="Docker does not say who manages them")]
    if driver != "systemd":
        return [passed(check, f"control groups are managed by {driver}; GPUs stay with their containers")]
    return [_with_systemd(facts)]


def _with_systemd(facts: HostFacts) -> Finding:
    modes = injection_modes(facts)
    if not modes:
        return skipped("cgroup-driver", "control groups", "there is no way for GPUs into containers")
    if modes[0] == "gpus" and "nvidia" in facts.docker.missing_runtimes:
        return skipped("cgroup-driver", "control groups", "see the check toolkit-configured")
    safe = engine_knows_devices(facts, modes[0])
    if safe is None:
        cause = "the mode of NVIDIA's runtime is not known, and only its hook would lose GPUs at a daemon-reload"
        return unknown("cgroup-driver", "control groups are managed by systemd", cause=cause)
    return _links(facts) if safe else _lost_by_hook(facts)


def _lost_by_hook(facts: HostFacts) -> Finding:
    linked = facts.nvidia_kernel.dev_char_links is True
    return warned(
        "cgroup-driver",
        "gpus-lost-on-reload",
        "running containers may lose their GPUs at `systemctl daemon-reload`",
        cause="a hook hands over the GPUs, and systemd, which manages the control groups, does not know of it",
        fix=_with_the_engine(facts),
        evidence=(_TROUBLE,),
        severity="info" if linked else "warning",
    )


def _with_the_engine(facts: HostFacts) -> str:
    """How the engine itself comes to give the devices. The mode cdi needs a specification, which the toolkit writes by
    itself from 1.18 on only, and sets the hook of `--gpus` aside:
    https://github.com/NVIDIA/nvidia-container-toolkit/issues/1246
    """
    specified = any(spec.devices for spec in cdi.gpu_specs(facts))
    by_cdi = f"`{_MODE_CDI}`" if specified else f"`{_GENERATE} && {_MODE_CDI}`"
    return (
        f"Update the toolkit to 1.18 or later with its mode auto and `--runtime=nvidia`; or {by_cdi}, after which "
        "containers with `--gpus` no longer start; or add "
        f'"exec-opts": ["native.cgroupdriver=cgroupfs"] to {config_path(facts.docker)}, then {restart(facts.docker)}.'
    )


def _links(facts: HostFacts) -> Finding:
    """The engine knows the devices; some versions of runc lose them all the same where /dev/char lacks their links."""
    check, runc, links = "cgroup-driver", facts.docker.runc, facts.nvidia_kernel.dev_char_links
    title = "control groups are managed by systemd; GPUs stay with their containers"
    affected = at_least(runc, _RUNC_NEEDS_LINKS) and not at_least(runc, _RUNC_MENDED)
    if links or not affected:
        return passed(check, title)
    if links is None or is_rebuilt(runc or ""):
        cause = f"runc {runc} may need links in /dev/char to keep devices at a daemon-reload"
        return unknown(check, "control groups are managed by systemd", cause=cause)
    return warned(
        check,
        "gpus-lost-on-reload",
        "running containers may lose their GPUs at `systemctl daemon-reload`",
        cause=f"runc {runc} drops devices without a link in /dev/char; {_RUNC_MENDED} does not",
        fix="Update runc, or run `sudo nvidia-ctk system create-dev-char-symlinks --create-all` at each boot.",
        evidence=("https://github.com/opencontainers/runc/issues/3708",),
    )


def judge_daemon_config(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Docker reads its configuration file when it starts: one that cannot be read keeps it from starting, and one that
    was changed since then does nothing yet. https://docs.docker.com/engine/daemon/troubleshoot/
    """
    check, config, docker = "daemon-config", facts.docker.config, facts.docker
    if reason := no_docker_wanted(needs):
        return [skipped(check, "Docker's configuration", reason)]
    if config is None:
        return [skipped(check, "Docker's configuration", "this daemon has no file that is known here")]
    if config.exists is None:
        cause = config.problem or "this user may not read it"
        return [unknown(check, f"Docker's configuration {config.path}", cause=cause)]
    if not config.exists:
        return [passed(check, "Docker runs with its own settings; there is no configuration file")]
    if config.problem:
        return [_unreadable(config, docker)]
    findings = []
    if config.repeated:
        findings.append(
            warned(
                check,
                "docker-config-repeated",
                f"{config.path} sets {', '.join(config.repeated)} twice",
                cause="Docker takes only one of them, so that a part of the file does nothing",
                fix=f"Join them into one, then {restart(docker)}.",
            )
        )
    if docker.state == "ok" and (pending := tuple(_pending(config, docker))):
        findings.append(_restart(config, docker, pending))
    if docker.state == "unreachable" and config.hosts:
        findings.append(
            warned(
                check,
                "docker-config-hosts",
                f"{config.path} says where to listen, and so may the service unit",
                cause="Docker does not start when both the file and a flag (`-H fd://`) say it",
                fix="Remove hosts from the file, or the flag: "
                "https://docs.docker.com/engine/daemon/troubleshoot/#use-the-hosts-key-in-daemonjson-with-systemd",
            )
        )
    return findings or [passed(check, f"Docker runs as {config.path} says")]


def _unreadable(config: DaemonConfig, docker: DockerFacts) -> Finding:
    later = "Docker will not start again with it" if docker.state == "ok" else "Docker does not start with it"
    return warned(
        "daemon-config",
        "docker-config-invalid",
        f"{config.path} is not a valid configuration",
        cause=f"{config.problem}; {later}",
        fix=f"Correct it; `dockerd --validate --config-file {shlex.quote(config.path)}` says whether it is.",
    )


def _pending(config: DaemonConfig, docker: DockerFacts) -> Iterator[tuple[str, bool]]:
    """What the file says and the daemon does not do: in words, and whether a reload is enough for it.

    https://docs.docker.com/reference/cli/dockerd/#configuration-reload-behavior
    """
    for name in config.runtimes or ():
        if name not in docker.runtimes:
            yield f"the runtime {name}", True
    if config.default_runtime and docker.default_runtime and config.default_runtime != docker.default_runtime:
        yield f"the default runtime {config.default_runtime} (it is {docker.default_runtime})", True
    if config.live_restore is not None and docker.live_restore not in (None, config.live_restore):
        yield f"live-restore {'on' if config.live_restore else 'off'}", True
    if config.cgroup_driver and docker.cgroup_driver not in (None, "none", config.cgroup_driver):
        yield f"the cgroup driver {config.cgroup_driver} (it is {docker.cgroup_driver})", False
    if config.cdi and docker.cdi_spec_dirs is None and at_least(docker.version, "25.0"):
        yield "CDI on", False
    if config.cdi is False and docker.cdi_spec_dirs:
        yield "CDI off", False


def _restart(config: DaemonConfig, docker: DockerFacts, pending: tuple[tuple[str, bool], ...]) -> Finding:
    if all(reload for _, reload in pending) and docker.kind != "snap":
        fix = f"Run `{service_command(docker, 'reload')}`; running containers go on."
    else:
        fix = f"Run {restart(docker)}."
    return warned(
        "daemon-config",
        "docker-restart-pending",
        f"{config.path} was changed, and Docker does not know it yet",
        cause="the daemon was not restarted since: it lacks " + ", ".join(words for words, _ in pending),
        fix=fix,
    )


CHECKS = (
    Check(
        "image-store",
        "docker",
        "Docker keeps images in a way that fits large ones",
        judge_image_store,
    ),
    Check(
        "cgroup-driver",
        "docker",
        "containers keep their GPUs when systemd is reloaded",
        judge_cgroup_driver,
        ("gpus-lost-on-reload",),
    ),
    Check(
        "daemon-config",
        "docker",
        "Docker's configuration is valid and in use",
        judge_daemon_config,
        ("docker-config-hosts", "docker-config-invalid", "docker-config-repeated", "docker-restart-pending"),
    ),
)
