"""What confines programs on this host, and what that means for containers and GPUs."""

import shlex

from nimctl.core.facts import HostFacts
from nimctl.doctor.checks.scope import docker_silent, no_docker_wanted, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, passed, skipped, unknown, warned

# Types that containers may write; the second is the older name of the first.
# https://github.com/containers/container-selinux
_SHARED = ("container_file_t", "svirt_sandbox_file_t", "container_ro_file_t")
_BY_BOOLEAN = ("nfs_t", "cifs_t", "fusefs_t", "cephfs_t")  # network mounts have one label for all of their files


def judge_selinux(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Where SELinux confines containers, the cache folder carries a label that they may write, and the policy lets them
    use GPUs: else they get "permission denied" whatever the modes say, and NVML "insufficient permissions".
    https://docs.docker.com/engine/storage/bind-mounts/#configure-the-selinux-label
    """
    title, mode = "SELinux", facts.security.selinux
    if reason := no_docker_wanted(needs):
        return [skipped("selinux", title, reason)]
    if mode is None:
        return [unknown("selinux", title, cause="neither /sys/fs/selinux nor /proc/filesystems could be read")]
    if mode != "enforcing":
        return [passed("selinux", f"SELinux is {mode}")]
    if reason := docker_silent(facts):
        return [skipped("selinux", "SELinux is enforcing", reason)]
    if not _has(facts, "selinux"):
        return [passed("selinux", "SELinux is enforcing, and Docker does not label containers")]
    return [f for f in (_cache_label(facts), _gpu_devices(facts, needs)) if f is not None] or [
        passed("selinux", "SELinux is enforcing, and lets containers use cache and GPUs")
    ]


def _cache_label(facts: HostFacts) -> Finding | None:
    cache = facts.cache
    if not cache.exists:
        return None  # the check `cache` says so
    parts = (cache.selinux_label or "").split(":")
    kind = parts[2] if len(parts) > 2 else None
    if kind in _SHARED:
        return None
    title = f"SELinux is enforcing, label of the cache: {kind or 'unknown'}"
    if kind is None or kind in _BY_BOOLEAN:
        cause = "the mount decides over it" if kind else "the label could not be read"
        return unknown("selinux", title, cause=cause, fix="Try it: `nimctl doctor --probe`.")
    cause = "containers may not write files of this label, whatever their mode"
    below, path = shlex.quote(f"{cache.path}(/.*)?"), shlex.quote(cache.path)
    fix = f"Run `sudo semanage fcontext -a -t container_file_t {below} && sudo restorecon -R {path}`."
    return warned("selinux", "selinux-cache-label", title, cause=cause, fix=fix)


def _gpu_devices(facts: HostFacts, needs: Needs) -> Finding | None:
    if no_gpu_wanted(needs) or facts.security.selinux_devices is not False:
        return None
    title = "SELinux is enforcing, and keeps containers from GPUs"
    cause = "neither container_use_devices nor container_use_xserver_devices is on"
    fix = "Run `sudo setsebool -P container_use_devices on`."
    return warned("selinux", "selinux-gpu-devices", title, cause=cause, fix=fix)


def judge_apparmor(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Where the kernel has AppArmor, Docker confines containers with it; it leaves that out, and says so in its log
    only, when the program apparmor_parser is missing. https://docs.docker.com/engine/security/apparmor/ and
    https://github.com/moby/moby/pull/44902
    """
    title = "AppArmor"
    if reason := no_docker_wanted(needs) or docker_silent(facts):
        return [skipped("apparmor", title, reason)]
    if _has(facts, "apparmor"):
        return [passed("apparmor", "AppArmor confines containers")]
    if facts.docker.rootless or facts.docker.kind not in (None, "engine"):
        return [skipped("apparmor", title, "only the host's own Docker Engine as root uses it")]
    if facts.security.apparmor is None:
        return [unknown("apparmor", title, cause="/sys/module could not be read")]
    if not facts.security.apparmor:
        return [passed("apparmor", "AppArmor is off")]
    cause = "the kernel has AppArmor, and Docker found no apparmor_parser when it started"
    fix = "Install the package (`sudo apt-get install apparmor`), and restart Docker when no container runs."
    return [
        warned(
            "apparmor",
            "apparmor-unused",
            "AppArmor is on, and not used by Docker",
            cause=cause,
            fix=fix,
            severity="info",
        )
    ]


def _has(facts: HostFacts, name: str) -> bool:
    """Whether Docker names this way to confine containers: "name=apparmor", or "name=seccomp,profile=builtin"."""
    return any(option.partition(",")[0] in (name, f"name={name}") for option in facts.docker.security_options)


CHECKS = (
    Check(
        "selinux",
        "host",
        "SELinux lets containers use the cache and the GPUs",
        judge_selinux,
        ("selinux-cache-label", "selinux-gpu-devices"),
    ),
    Check(
        "apparmor", "host", "AppArmor confines containers where the kernel has it", judge_apparmor, ("apparmor-unused",)
    ),
)
