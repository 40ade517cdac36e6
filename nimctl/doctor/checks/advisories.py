"""Known security holes of what runs here: one finding a component, whatever the number of holes."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from nimctl.core.docker_state import elsewhere
from nimctl.core.facts import HostFacts
from nimctl.core.facts.packages import DRIVER_PACKAGES
from nimctl.doctor import advisories
from nimctl.doctor.advisories import Advisory, Assessment, Component, Condition, Origin
from nimctl.doctor.checks.scope import docker_silent, look_failed, no_docker_wanted, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, passed, skipped, unknown, warned
from nimctl.doctor.versions import is_rebuilt

_MOST_EVIDENCE = 8
# Where CVSS begins to call a hole more than "low": https://www.first.org/cvss/v3-1/specification-document, section 5.
_MEDIUM = 4.0
# Where Docker is on another machine, so are these.
_OF_DOCKER: tuple[Component, ...] = ("docker-engine", "runc")

_WINDOWS_HOLES = "https://www.nvidia.com/en-us/security/"


@dataclass(frozen=True)
class _Subject:
    """One component: what people call it, which packages bring it, and how it is updated to a version."""

    component: Component
    check: str
    name: str
    packages: tuple[str, ...]
    update: str


_DRIVER = _Subject(
    "driver",
    "advisories-driver",
    "NVIDIA driver",
    DRIVER_PACKAGES,
    "Update the driver to {safe} or later: https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/",
)
_TOOLKIT = _Subject(
    "container-toolkit",
    "advisories-toolkit",
    "NVIDIA Container Toolkit",
    ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container1"),
    "Update to {safe} or later: `sudo apt-get install --only-upgrade nvidia-container-toolkit`, or your "
    "distribution's way",
)
_DOCKER = _Subject(
    "docker-engine",
    "advisories-docker",
    "Docker Engine",
    ("docker-ce", "docker.io", "docker", "docker-engine", "moby-engine"),
    "Update Docker Engine to {safe} or later: https://docs.docker.com/engine/install/",
)
_RUNC = _Subject(
    "runc",
    "advisories-runc",
    "runc",
    ("containerd.io", "runc", "moby-runc"),
    "Update runc to {safe} or later, by the package containerd.io where Docker's own packages are used",
)
_VLLM = _Subject(
    "vllm",
    "advisories-vllm",
    "vLLM",
    (),
    "Update vLLM to {safe} or later: `pip install --upgrade 'vllm>={safe}'`",
)


def judge_driver(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Holes in the kernel driver let a container's code reach the kernel or other tenants' GPU memory.

    From NVIDIA's bulletins, per driver branch: https://github.com/NVIDIA/product-security
    """
    if reason := no_gpu_wanted(needs) or ("" if facts.gpus.driver else "the driver's version is not known"):
        return [skipped(_DRIVER.check, "known holes of the driver", reason)]
    if facts.system.wsl:
        title = f"NVIDIA driver {facts.gpus.driver} of Windows: cannot tell whether it is safe"
        cause = "Windows' drivers are counted in another way than Linux's, of which the known holes are listed"
        return [unknown(_DRIVER.check, title, cause=cause, evidence=(_WINDOWS_HOLES,))]
    return say(_DRIVER, "driver-vulnerable", facts, facts.gpus.driver)


def judge_toolkit(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The toolkit runs as root for every GPU container, and all its bulletins are ways out of the container.

    NIM's documented minimum (1.14.0) is older than every fix: https://github.com/NVIDIA/product-security
    """
    reason = no_docker_wanted(needs) or no_gpu_wanted(needs)
    if reason := reason or ("" if facts.toolkit.version else "the toolkit's version is not known"):
        return [skipped(_TOOLKIT.check, "known holes of the toolkit", reason)]
    conditions: set[Condition] = set()
    if facts.toolkit.mode == "cdi":
        conditions.add("cdi-mode")
    elif facts.toolkit.mode == "legacy":
        conditions.add("legacy-mode")
    if "disable-cuda-compat-lib-hook" in (facts.toolkit.features or ()):
        conditions.add("compat-hook-disabled")
    if facts.docker.default_runtime == "crun":
        conditions.add("crun")
    return say(_TOOLKIT, "toolkit-vulnerable", facts, facts.toolkit.version, conditions)


def judge_docker(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Holes in the Docker daemon hand root on the host to a container or an image.

    From OSV's records of the Engine: https://github.com/moby/moby/security/advisories
    """
    reason = no_docker_wanted(needs) or docker_silent(facts)
    if not reason and facts.docker.kind in ("podman", "other"):
        reason = "another engine answers in Docker's place"
    if reason := reason or ("" if facts.docker.version else "the Engine's version is not known"):
        return [skipped(_DOCKER.check, "known holes of Docker Engine", reason)]
    return say(_DOCKER, "docker-vulnerable", facts, facts.docker.version)


def judge_runc(facts: HostFacts, needs: Needs) -> list[Finding]:
    """runc starts every container; most of its holes let a malicious image leave its container.

    From OSV's records: https://github.com/opencontainers/runc/security/advisories
    """
    reason = no_docker_wanted(needs) or docker_silent(facts)
    if not reason and facts.docker.default_runtime not in (None, "runc", "nvidia"):
        reason = f"containers are started by {facts.docker.default_runtime}"
    if reason := reason or ("" if facts.docker.runc else "runc's version is not known"):
        return [skipped(_RUNC.check, "known holes of runc", reason)]
    return say(_RUNC, "runc-vulnerable", facts, facts.docker.runc)


def judge_vllm(facts: HostFacts, needs: Needs) -> list[Finding]:
    """vLLM parses what strangers send; the images bring a pinned one, the process runtime takes this host's.

    From OSV's records: https://github.com/vllm-project/vllm/security/advisories
    """
    reason = "the image brings its own vLLM" if needs.runtime == "docker" else ""
    if reason := reason or ("" if facts.tools.vllm else "there is no vLLM"):
        return [skipped(_VLLM.check, "known holes of vLLM", reason)]
    return say(_VLLM, "vllm-vulnerable", facts, facts.tools.vllm)


def say(
    subject: _Subject,
    id: str,  # noqa: A002 (the user's word)
    facts: HostFacts,
    version: str | None,
    conditions: Collection[Condition] = (),
) -> list[Finding]:
    """The one finding on a component: `id` when it has known holes."""
    origin: Origin | None = "upstream"
    if subject.packages:
        far = subject.component in _OF_DOCKER and elsewhere(facts.docker) and not is_rebuilt(str(version))
        origin = None if far else origin_of(facts, subject.packages, str(version))
    seen = advisories.assess(subject.component, version, origin=origin, conditions=conditions)
    stated = f"{subject.name} {version}"
    as_of = f"known holes as of {advisories.read_on()}"
    if seen.state == "unaffected":
        return [passed(subject.check, f"{stated} has no known holes", evidence=(as_of,))]
    if seen.state == "unknown":
        title = f"{stated}: cannot tell whether it is safe"
        return [unknown(subject.check, title, cause=seen.reason, evidence=(*_listed(seen.uncertain), as_of))]
    return [_vulnerable(subject, id, str(version), seen, as_of)]


def _vulnerable(subject: _Subject, hole: str, version: str, seen: Assessment, as_of: str) -> Finding:
    # A hole with a precondition that the facts do not show is told, but is no reason to be loud.
    plain = [a for a in seen.advisories if a.only is None]
    worst = (plain or seen.advisories)[0]
    count = len(seen.advisories)
    holes = "a known hole" if count == 1 else f"{count} known holes"
    ended = advisories.safe_version(subject.component, version) is None
    remark = " (its branch gets no more fixes)" if ended and subject.component == "driver" else ""
    fix = subject.update.format(safe=seen.safe) if seen.safe else "No release without it is known yet"
    if text := next((m.text for m in worst.mitigations if m.before is None), ""):
        fix += f"; until then: {text}"
    return warned(
        subject.check,
        hole,
        f"{subject.name} {version} has {holes}{remark}",
        cause=f"the worst is {worst.id} (CVSS {worst.score}{', ' + worst.only if worst.only else ''}): {worst.link}",
        fix=f"{fix}.",
        evidence=(*_listed(seen.advisories), as_of),
        severity="warning" if plain and worst.score >= _MEDIUM else "info",
    )


def _listed(found: tuple[Advisory, ...]) -> tuple[str, ...]:
    room = _MOST_EVIDENCE - 1  # the last line says as of when
    lines = [f"{a.id} {a.score}{' ' + a.only if a.only else ''} {a.link}" for a in found]
    if len(lines) > room:
        lines = [*lines[: room - 1], f"and {len(lines) - room + 1} more"]
    return tuple(lines)


def origin_of(facts: HostFacts, names: tuple[str, ...], version: str) -> Origin | None:
    """Who built the program of this version: by its package, else by the form of its number; None: cannot be told.

    A program that no package brought (NVIDIA's installer, static binaries) is its maker's own build.
    """
    if is_rebuilt(version):
        return "distribution"
    if look_failed(facts, "packages") or facts.system.container not in (None, "none"):
        return None  # the packages that were seen are not those of the machine on which the program runs
    brought = [p for p in facts.packages if any(fnmatchcase(p.name, name) for name in names)]
    origins = {p.origin for p in brought if _number(p.version) == _number(version)} or {p.origin for p in brought}
    if "distribution" in origins:
        return "distribution"
    return "upstream" if not origins or "upstream" in origins else None


def _number(version: str) -> str:
    """The upstream number in a package's version: 5:28.5.2-1~debian.12~bookworm is 28.5.2."""
    number = version.split(":", 1)[-1]
    for end in "-~+":
        number = number.split(end, 1)[0]
    return number.removeprefix("v")


def _check(subject: _Subject, judge: Callable[[HostFacts, Needs], list[Finding]], hole: str) -> Check:
    return Check(subject.check, "security", f"{subject.name} without known holes", judge, (hole,))


CHECKS: tuple[Check, ...] = (
    _check(_DRIVER, judge_driver, "driver-vulnerable"),
    _check(_TOOLKIT, judge_toolkit, "toolkit-vulnerable"),
    _check(_DOCKER, judge_docker, "docker-vulnerable"),
    _check(_RUNC, judge_runc, "runc-vulnerable"),
    _check(_VLLM, judge_vllm, "vllm-vulnerable"),
)
