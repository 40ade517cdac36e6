"""The NVIDIA Container Toolkit, and the ways in which GPUs get into a container."""

from typing import Literal

from nimctl.core import cdi
from nimctl.core.facts import HostFacts
from nimctl.doctor import minimums
from nimctl.doctor.checks.scope import chosen_gpus, docker_silent, look_failed, no_docker_wanted, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.versions import at_least, is_rebuilt

_INSTALL = (
    "Install it: https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html, then "
    "`sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`."
)
_CONFIGURE = "Run `sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`."
_ENABLE_CDI = (
    'Turn CDI on: `sudo nvidia-ctk config --set nvidia-container-runtime.mode=cdi`; add {"features": {"cdi": true}} '
    "to /etc/docker/daemon.json and run `sudo systemctl restart docker`."
)

Mode = Literal["runtime", "gpus", "cdi"]
_MODE_WORDS = {
    "runtime": "the nvidia runtime (--runtime=nvidia)",
    "gpus": "the runtime hook (--gpus)",
    "cdi": "CDI (--device nvidia.com/gpu=...)",
}


def judge_toolkit(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The toolkit is there, new enough, and without known holes."""
    title = "NVIDIA Container Toolkit"
    if reason := no_docker_wanted(needs) or no_gpu_wanted(needs):
        return [skipped("toolkit", title, reason)]
    version = facts.toolkit.version
    if version is None:
        return [_without_version(facts, title)]
    enough = at_least(version, minimums.TOOLKIT)
    if enough is None:
        return [unknown("toolkit", f"{title} {version}", cause="its number cannot be read")]
    stated = f"{title} {version} ({minimums.TOOLKIT} or later is needed)"
    if not enough:
        cause = "older versions cannot configure Docker for CDI, and miss fixes of container escapes"
        return [failed("toolkit", "toolkit-too-old", stated, cause=cause, fix=_INSTALL)]
    return [_safety(version, stated)]


def _without_version(facts: HostFacts, title: str) -> Finding:
    modes = injection_modes(facts)
    if modes or facts.toolkit.hook:
        ways = ", ".join(_MODE_WORDS[mode] for mode in modes) or str(facts.toolkit.hook)
        cause = f"no program or package tells its version, but there is {ways}"
        return unknown("toolkit", f"{title} of unknown version", cause=cause)
    if problem := look_failed(facts, "toolkit"):
        return unknown("toolkit", title, cause=problem)
    cause = "neither nvidia-ctk nor nvidia-container-cli nor a package of that name was found"
    return failed("toolkit", "toolkit-missing", f"no {title}", cause=cause, fix=_INSTALL)


def _safety(version: str, stated: str) -> Finding:
    if at_least(version, minimums.SAFE_TOOLKIT):
        return passed("toolkit", stated)
    if is_rebuilt(version):
        cause = f"a distribution built it, so its number does not tell whether it is safe: {minimums.TOOLKIT_BULLETIN}"
        return unknown("toolkit", f"{stated}; cannot tell whether it is safe", cause=cause)
    return warned(
        "toolkit",
        "toolkit-vulnerable",
        f"NVIDIA Container Toolkit {version} works but is not safe ({minimums.SAFE_TOOLKIT} or later is)",
        cause=f"CVE-2026-24260: a container can gain rights on the host; {minimums.TOOLKIT_BULLETIN}",
        fix="Update it: `sudo apt-get install --only-upgrade nvidia-container-toolkit`, or your distribution's way.",
    )


def judge_injection(facts: HostFacts, needs: Needs) -> list[Finding]:
    """At least one way into containers is open for the GPUs, and which."""
    title = "GPUs in containers"
    if reason := no_docker_wanted(needs) or no_gpu_wanted(needs) or docker_silent(facts):
        return [skipped("gpu-runtime", title, reason)]
    findings = [
        warned(
            "gpu-runtime",
            "cdi-unreadable",
            f"the CDI specification {spec.path} cannot be used",
            cause=spec.problem,
            fix=f"Write it anew: sudo nvidia-ctk cdi generate --output={spec.path}",
        )
        for spec in facts.cdi
        if spec.problem and "nvidia" in spec.path.lower()
    ]
    modes = injection_modes(facts)
    if modes and (stale := _stale(facts, needs)):
        findings += stale
        if modes == ("cdi",):
            return findings
    if modes:
        findings.append(
            passed("gpu-runtime", "GPUs get into containers by " + ", ".join(_MODE_WORDS[m] for m in modes))
        )
        if needs.recipe and needs.recipe.runtime == "nvidia" and "runtime" not in modes:
            findings.append(
                warned(
                    "gpu-runtime",
                    "nvidia-runtime-missing",
                    f"Docker has no runtime named nvidia, which the page of {needs.recipe.name} uses",
                    cause="the toolkit is not configured in Docker",
                    fix=_CONFIGURE,
                    severity="info",
                )
            )
        return findings
    if problem := look_failed(facts, "toolkit") or look_failed(facts, "cdi") or look_failed(facts, "docker's cdi"):
        return [*findings, unknown("gpu-runtime", title, cause=problem)]
    specs = [spec for spec in cdi.gpu_specs(facts) if spec.devices]
    if specs:  # none that Docker reads
        cause = str(cdi.names_of((), facts).problem)
        fix = _ENABLE_CDI if facts.docker.cdi_spec_dirs is None else _CONFIGURE
    else:
        cause, fix = "Docker has no runtime named nvidia, no GPU hook, and there is no CDI specification", _CONFIGURE
    if facts.toolkit.version is None and not specs:
        fix = _INSTALL
    return [
        *findings,
        failed("gpu-runtime", "gpu-runtime-missing", "no way for GPUs into containers", cause=cause, fix=fix),
    ]


def injection_modes(facts: HostFacts) -> tuple[Mode, ...]:
    """The ways in which this Docker can give GPUs to a container, in the order in which a run tries them."""
    modes: list[Mode] = []
    if "nvidia" in facts.docker.runtimes:
        modes.append("runtime")
    if facts.toolkit.hook:
        modes.append("gpus")
    if cdi.usable_specs(facts):
        modes.append("cdi")
    return tuple(modes)


def _stale(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The chosen GPUs that the specifications do not list."""
    found = cdi.names_of(chosen_gpus(facts, needs), facts)
    if not found.missing or found.problem is None:
        return []
    last_resort = injection_modes(facts) == ("cdi",)
    say = failed if last_resort else warned
    return [
        say(
            "gpu-runtime",
            "gpu-runtime-missing" if last_resort else "cdi-stale",
            f"the CDI specification does not know GPU {', '.join(str(g.index) for g in found.missing)}",
            cause=found.problem,
            fix=f"Write it anew: sudo nvidia-ctk cdi generate --output={found.path}",
        )
    ]


CHECKS = (
    Check("toolkit", "docker", f"NVIDIA Container Toolkit {minimums.TOOLKIT} or later", judge_toolkit),
    Check("gpu-runtime", "docker", "Docker can give GPUs to a container", judge_injection),
)
