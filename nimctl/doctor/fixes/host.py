"""Remedies for the driver, the fabric, the GPUs, the cache and the login file. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from nimctl.core.facts import HostFacts
from nimctl.doctor.checks.gpu_words import is_data_centre
from nimctl.doctor.checks.scope import chosen_gpus
from nimctl.doctor.fixes.model import Remedy, as_root, without_root
from nimctl.doctor.model import Finding, Needs

_CACHE_INIT = "nimctl cache init"
_UMAD_FILE = "/etc/modules-load.d/ib_umad.conf"
_FABRIC = "nvidia-fabricmanager"


def _ids(findings: Sequence[Finding], *wanted: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f.id for f in findings if f.id in wanted))


def login(findings: Sequence[Finding], facts: HostFacts, path: str) -> list[Remedy]:
    """Docker's logins, closed to other users. The file is the caller's own, so this needs no root."""
    mends = _ids(findings, "login-readable")
    if not mends or not path:
        return []
    return [Remedy("close-logins", mends, (("chmod", "600", path),), f"nobody else can read {path}", "none")]


def driver(findings: Sequence[Finding], facts: HostFacts) -> list[Remedy]:
    """The driver's module or its device nodes, where they are all that is missing."""
    found = []
    for finding in findings:
        # The same id is used for a module that is loaded and does not answer, which no modprobe mends.
        if finding.id == "driver-not-loaded" and "`sudo modprobe nvidia`" in finding.fix:
            commands = (as_root(facts, "modprobe", "nvidia"), as_root(facts, "modprobe", "nvidia_uvm"))
            changes = "the driver's kernel modules are loaded, until the next boot"
            found.append(Remedy("load-driver", (finding.id,), commands, changes, "kernel-module"))
        if finding.id == "driver-nodes-missing" and "nvidia-modprobe" in finding.fix:
            nodes = (as_root(facts, "nvidia-modprobe", "-c", "0", "-u"),)
            changes = "the driver's device nodes in /dev are made, until the next boot"
            found.append(Remedy("make-device-nodes", (finding.id,), nodes, changes, "kernel-module"))
    return [_with_root(remedy, facts) for remedy in found]


def fabric(findings: Sequence[Finding], facts: HostFacts) -> list[Remedy]:
    """The module that the fabric manager needs, and the fabric manager, where it is installed."""
    found = []
    if mends := _ids(findings, "ib-umad-missing"):
        commands = (
            as_root(facts, "sh", "-c", f"echo ib_umad > {_UMAD_FILE}"),
            as_root(facts, "modprobe", "ib_umad"),
            as_root(facts, "systemctl", "restart", _FABRIC),
        )
        changes = "module ib_umad is loaded, now and at each boot, and the fabric manager started with it"
        found.append(Remedy("load-ib-umad", mends, commands, changes, "kernel-module", (_UMAD_FILE,)))
    down = [f for f in findings if f.id == "fabric-manager-down" and not f.fix.startswith("Install")]
    if down:
        start = (as_root(facts, "systemctl", "enable", "--now", _FABRIC),)
        changes = "the fabric manager runs, now and after each boot"
        found.append(Remedy("start-fabric-manager", (down[0].id,), start, changes, "service"))
    return [_with_root(remedy, facts) for remedy in found]


def persistence(findings: Sequence[Finding], facts: HostFacts, needs: Needs) -> list[Remedy]:
    """Idle GPUs stay ready."""
    mends = _ids(findings, "gpu-persistence-off")
    off = [g for g in chosen_gpus(facts, needs) if g.persistence is False and is_data_centre(g)]
    if not mends or not off:
        return []
    only = () if len(off) == len(facts.gpus.gpus) else ("-i", ",".join(str(g.index) for g in off))
    changes = "the driver keeps idle GPUs ready, until the next boot"
    return [
        _with_root(
            Remedy("persistence-on", mends, (as_root(facts, "nvidia-smi", "-pm", "1", *only),), changes, "gpu-setting"),
            facts,
        )
    ]


def cache(findings: Sequence[Finding], facts: HostFacts) -> list[Remedy]:
    """The cache folder, where its check says that `nimctl cache init` mends it: it is not read-only, not somebody
    else's server's, and not full.
    """
    mine = [f for f in findings if f.check in ("cache", "cache-entries") and _CACHE_INIT in f.fix]
    if not mine:
        return []
    path = facts.cache.path
    commands = [as_root(facts, "nimctl", "cache", "init", path)]
    if facts.cache.acl or facts.cache.default_acl:  # below an access list a chmod changes its mask alone
        commands.insert(0, as_root(facts, "setfacl", "-R", "-b", path))
    may = facts.system.uid == 0 or "root" in facts.system.groups
    return [
        Remedy(
            "cache-init",
            tuple(dict.fromkeys(f.id for f in mine)),
            tuple(commands),
            f"{path} and all in it get group 0, folders mode 2770, files g+rw; what other users own in it, too",
            "permissions",
            refused="" if may else without_root(facts),
        )
    ]


def _with_root(remedy: Remedy, facts: HostFacts) -> Remedy:
    return replace(remedy, refused=without_root(facts))
