"""The NVIDIA Container Toolkit, and the ways in which GPUs get into a container."""

import shlex

from nimctl.core import cdi
from nimctl.core.docker_state import config_path, is_rootless, restart, service_command
from nimctl.core.facts import HostFacts
from nimctl.core.injection import WORDS, Mode, Way, config_refusal, injection_modes, runtime_uses_cdi, ways
from nimctl.doctor import minimums
from nimctl.doctor.checks.scope import chosen_gpus, look_failed, no_docker_wanted, no_engine, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.versions import at_least

# New runtimes come with a reload, at which containers go on:
# https://docs.docker.com/reference/cli/dockerd/#configuration-reload-behavior
_GUIDE = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"
_SET_NO_CGROUPS = "Run `sudo nvidia-ctk config --in-place --set nvidia-container-cli.no-cgroups={}`."
_RENEW_CONFIG = "Correct {0}, or write it anew: `sudo nvidia-ctk config default --output={1}`."
_WRITE_SPEC = "Write one: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
_ENGINE = "https://docs.docker.com/engine/install/"
_SEE_RUNTIME = "see the check gpu-runtime"


def judge_toolkit(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The toolkit is there and new enough; `advisories-toolkit` says whether it is safe."""
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
        return [failed("toolkit", "toolkit-too-old", stated, cause=cause, fix=_install(facts))]
    return [passed("toolkit", stated)]


def _without_version(facts: HostFacts, title: str) -> Finding:
    modes = injection_modes(facts)
    if modes or facts.toolkit.hook:
        found = ", ".join(WORDS[mode] for mode in modes) or str(facts.toolkit.hook)
        cause = f"no program or package tells its version, but there is {found}"
        return unknown("toolkit", f"{title} of unknown version", cause=cause)
    if problem := look_failed(facts, "toolkit"):
        return unknown("toolkit", title, cause=problem)
    cause = "neither nvidia-ctk nor nvidia-container-cli nor a package of that name was found"
    return failed("toolkit", "toolkit-missing", f"no {title}", cause=cause, fix=_install(facts))


def judge_configured(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Docker knows NVIDIA's runtime, and the toolkit's own configuration fits this Docker: without root its hook must
    not touch control groups, and with root it must.
    https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html#configuration
    """
    check, toolkit, docker = "toolkit-configured", facts.toolkit, facts.docker
    if reason := no_docker_wanted(needs) or no_gpu_wanted(needs) or no_engine(facts):
        return [skipped(check, "NVIDIA's runtime in Docker", reason)]
    if toolkit.version is None and "nvidia" not in docker.runtimes:
        return [skipped(check, "NVIDIA's runtime in Docker", "no toolkit was found")]
    if _fails_for_it(facts, needs):
        return [skipped(check, "NVIDIA's runtime in Docker", _SEE_RUNTIME)]
    findings = _config_file(facts)
    if "nvidia" in docker.missing_runtimes:
        path = (docker.runtime_paths or {}).get("nvidia")
        findings.append(
            warned(
                check,
                "nvidia-runtime-broken",
                f"Docker's runtime nvidia is not there: {path}",
                cause="the toolkit was removed or moved after Docker was configured for it",
                fix=_configure(facts),
            )
        )
    elif _lacks_wanted_runtime(facts, needs) and needs.recipe:
        findings.append(
            warned(
                check,
                "nvidia-runtime-missing",
                f"Docker has no runtime nvidia, which the page of {needs.recipe.name} uses",
                cause="the toolkit is not configured in Docker",
                fix=_configure(facts),
                severity="info",
            )
        )
    if findings:
        return findings
    if "nvidia" not in docker.runtimes:
        return [passed(check, "Docker has no runtime nvidia, and needs none with the other ways")]
    default = "; it is the default" if docker.default_runtime == "nvidia" else ""
    return [passed(check, f"Docker knows NVIDIA's runtime{default}", evidence=_settings(facts))]


def _lacks_wanted_runtime(facts: HostFacts, needs: Needs) -> bool:
    """Whether the page of the model uses a runtime that Docker lacks; where no way is open, `gpu-runtime` says so."""
    wanted = needs.recipe is not None and needs.recipe.runtime == "nvidia"
    return wanted and "nvidia" not in facts.docker.runtimes and bool(injection_modes(facts))


def _config_file(facts: HostFacts) -> list[Finding]:
    """What is wrong with the toolkit's config.toml."""
    toolkit, check = facts.toolkit, "toolkit-configured"
    if toolkit.config_problem:
        title = f"{toolkit.config} cannot be read"
        if "may not read" in toolkit.config_problem:
            return [unknown(check, title, cause=toolkit.config_problem)]
        fix = _renew_config(facts)
        return [warned(check, "toolkit-config-invalid", title, cause=toolkit.config_problem, fix=fix)]
    if runtime_uses_cdi(facts) or not toolkit.config:
        return []
    if facts.docker.rootless and not toolkit.no_cgroups:
        return [
            warned(
                check,
                "toolkit-no-cgroups",
                "the toolkit is not configured for rootless Docker",
                cause="its hook sets control groups, which only root may do",
                fix=_SET_NO_CGROUPS.format("true"),
            )
        ]
    if facts.docker.rootless is False and toolkit.no_cgroups:
        return [
            warned(
                check,
                "toolkit-no-cgroups",
                "the toolkit is configured for rootless Docker, and this one runs as root",
                cause="with no-cgroups its hook does not allow the GPUs to the container",
                fix=_SET_NO_CGROUPS.format("false"),
            )
        ]
    return []


def _settings(facts: HostFacts) -> tuple[str, ...]:
    toolkit = facts.toolkit
    said = [f"mode {toolkit.mode}"] if toolkit.mode else []
    said += [f"features {', '.join(toolkit.features)}"] if toolkit.features else []
    return (f"{toolkit.config}: {', '.join(said)}",) if toolkit.config and said else ()


def judge_injection(facts: HostFacts, needs: Needs) -> list[Finding]:
    """At least one way into containers is open for the GPUs, and which; for the others, why not. An image whose own
    CUDA libraries come before the driver's fails with error 803 in some of them, whatever the host is like
    (https://github.com/gpustack/gpustack/issues/4678): only a container that is started can tell.
    """
    check, title = "gpu-runtime", "GPUs in containers"
    if reason := no_docker_wanted(needs) or no_gpu_wanted(needs) or no_engine(facts):
        return [skipped(check, title, reason)]
    reasons = tuple(f"not by {WORDS[way.mode]}: {way.problem}" for way in ways(facts) if way.problem)
    names = cdi.names_of(chosen_gpus(facts, needs), facts)
    if modes := _open(facts, names):
        found = passed(check, "GPUs get into containers by " + ", ".join(WORDS[m] for m in modes), evidence=reasons)
        return [found, *_doubts(facts, modes[0])]
    if problem := _not_seen(facts):
        return [unknown(check, title, cause=problem)]
    closed = _closed(facts, names, reasons)
    nothing_set_up = not facts.cdi and "nvidia" not in facts.docker.runtimes
    if nothing_set_up and any(f.id == "toolkit-missing" for f in judge_toolkit(facts, needs)):
        return [skipped(check, title, "there is no toolkit")]  # the check before says it, and how to get one
    return [closed]


def _open(facts: HostFacts, names: cdi.CdiNames) -> tuple[Mode, ...]:
    """The ways that are open for the chosen GPUs. Docker looks them up by name for CDI alone."""
    return tuple(m for m in injection_modes(facts) if m != "cdi" or not names.missing)


def _not_seen(facts: HostFacts) -> str:
    """Why a way may be there that was not seen; what no look could change is known all the same."""
    if _other_docker(facts):
        return ""
    return look_failed(facts, "toolkit") or look_failed(facts, "cdi") or look_failed(facts, "docker's cdi")


def _fails_for_it(facts: HostFacts, needs: Needs) -> bool:
    """Whether `gpu-runtime` fails for what is wrong here, so that it need not be said twice."""
    names = cdi.names_of(chosen_gpus(facts, needs), facts)
    if _open(facts, names) or _not_seen(facts) or _other_docker(facts) or names.missing:
        return False
    there = [way for way in ways(facts) if way.there and way.problem]
    return bool(there) and _is_of_the_setup(facts, there[0])


def _is_of_the_setup(facts: HostFacts, way: Way) -> bool:
    """Whether `toolkit-configured` tells of this problem: the runtime's program, or the toolkit's own file."""
    gone = way.mode == "runtime" and "nvidia" in facts.docker.missing_runtimes
    return gone or "no-cgroups" in way.problem or way.problem == config_refusal(facts)


def _doubts(facts: HostFacts, first: Mode) -> list[Finding]:
    """A way that is set up, comes before the first that works, and does not work itself."""
    before = []
    for way in ways(facts):
        if way.mode == first:
            break
        if way.there and way.problem and not _is_of_the_setup(facts, way):
            before.append(way)
    if not before:
        return []
    return [
        warned(
            "gpu-runtime",
            "gpu-runtime-doubtful",
            f"{WORDS[before[0].mode]} is set up and does not work",
            cause=before[0].problem,
            fix=f"Nothing needs it here, {WORDS[first]} works; to mend it: {_remedy(facts, before[0])}",
            severity="info",
        )
    ]


def _closed(facts: HostFacts, names: cdi.CdiNames, reasons: tuple[str, ...]) -> Finding:
    """There is no way: the reason of the one that is nearest, and the shortest way out."""
    specs = [spec for spec in cdi.gpu_specs(facts) if spec.devices]
    there = [way for way in ways(facts) if way.there and way.problem]
    title = "no way for GPUs into containers"
    if other := _other_docker(facts):
        cause, fix = other
    elif names.missing:
        title = f"the CDI specification does not know GPU {', '.join(str(g.index) for g in names.missing)}"
        cause, fix = str(names.problem), _write_anew(names.path)
    elif specs and facts.docker.cdi_spec_dirs is None and not any(way.mode != "cdi" for way in there):
        cause, fix = str(names.problem), _enable_cdi(facts)
    elif [way.mode for way in there] == ["cdi"] and names.path:
        cause, fix = there[0].problem, _write_anew(names.path)
    elif there:
        cause, fix = there[0].problem, _remedy(facts, there[0])
    else:
        cause = "Docker has no runtime named nvidia, no GPU hook, and there is no CDI specification"
        fix = _configure(facts)
    return failed("gpu-runtime", "gpu-runtime-missing", title, cause=cause, fix=fix, evidence=reasons)


def _other_docker(facts: HostFacts) -> tuple[str, str] | None:
    """Cause and fix where this is a Docker that no setting of the toolkit reaches."""
    if facts.docker.kind == "desktop" and (problem := ways(facts)[0].problem):
        return problem, f"Use Docker Engine (`docker context use default` where it is installed): {_ENGINE}"
    if facts.docker.kind == "snap":
        cause = "the snap of Docker does not see the toolkit of this host"
        return cause, f"Remove it (`sudo snap remove docker`) and install Docker Engine: {_ENGINE}"
    return None


def _remedy(facts: HostFacts, way: Way) -> str:
    """What makes a way work that is set up."""
    if way.problem == config_refusal(facts):
        return _renew_config(facts)
    if "no-cgroups" in way.problem:
        return _SET_NO_CGROUPS.format("true" if facts.docker.rootless else "false")
    if "mode is cdi" in way.problem and way.mode == "runtime":
        return _WRITE_SPEC
    return _configure(facts)


def _renew_config(facts: HostFacts) -> str:
    path = facts.toolkit.config or ""
    return _RENEW_CONFIG.format(path, shlex.quote(path))


def _write_anew(path: str | None) -> str:
    return f"Write it anew: sudo nvidia-ctk cdi generate --output={shlex.quote(path or '')}"


def _enable_cdi(facts: HostFacts) -> str:
    docker = facts.docker
    return f'Turn CDI on: add {{"features": {{"cdi": true}}}} to {config_path(docker)}, then {restart(docker)}.'


def _install(facts: HostFacts) -> str:
    return f"Install it: {_GUIDE}, then {_tell_docker(facts)}."


def _configure(facts: HostFacts) -> str:
    """The command that tells this Docker of the toolkit, or where to get that."""
    if facts.toolkit.version is None and facts.toolkit.hook is None:
        return _install(facts)
    return f"Run {_tell_docker(facts)}; running containers go on."


def _tell_docker(facts: HostFacts) -> str:
    docker = facts.docker
    tell = "nvidia-ctk runtime configure --runtime=docker"
    if is_rootless(docker):
        tell += " --config=$HOME/.config/docker/daemon.json"
    else:
        tell = f"sudo {tell}"
    return f"`{tell} && {service_command(docker, 'reload')}`"


CHECKS = (
    Check(
        "toolkit",
        "docker",
        f"NVIDIA Container Toolkit {minimums.TOOLKIT} or later",
        judge_toolkit,
        ("toolkit-missing", "toolkit-too-old"),
    ),
    Check(
        "toolkit-configured",
        "docker",
        "NVIDIA's runtime is configured in Docker",
        judge_configured,
        ("nvidia-runtime-broken", "nvidia-runtime-missing", "toolkit-config-invalid", "toolkit-no-cgroups"),
    ),
    Check(
        "gpu-runtime",
        "docker",
        "Docker can give GPUs to a container",
        judge_injection,
        ("gpu-runtime-doubtful", "gpu-runtime-missing"),
    ),
)
