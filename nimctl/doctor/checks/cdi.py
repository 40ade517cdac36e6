"""CDI specifications: present, current, and each device once."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from nimctl.core import cdi
from nimctl.core.docker_state import config_path, restart
from nimctl.core.facts import CdiSpec, HostFacts
from nimctl.core.injection import injection_modes
from nimctl.doctor.checks.scope import chosen_gpus, look_failed, no_docker_wanted, no_engine, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, passed, skipped, unknown, warned

_CHECK = "cdi"
# What the toolkit itself writes; another file of NVIDIA's, such as one for IMEX, must not get the GPUs written into it.
_WRITTEN_BY_TOOLKIT = ("nvidia.yaml", "nvidia.json")


def judge_cdi(facts: HostFacts, needs: Needs) -> list[Finding]:
    """A CDI specification lists files and devices of this very driver. After an update of the driver, or another GPU,
    it is stale until it is written anew, and containers do not start or see the wrong libraries; two files of one
    folder that define one device make Docker refuse it.
    https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/cdi-support.html
    """
    title = "CDI specifications"
    if reason := no_docker_wanted(needs) or no_gpu_wanted(needs) or no_engine(facts):
        return [skipped(_CHECK, title, reason)]
    if problem := look_failed(facts, "cdi") or look_failed(facts, "docker's cdi"):
        return [unknown(_CHECK, title, cause=problem)]
    findings = _unreadable(facts)
    specs = cdi.usable_specs(facts)
    if not specs:
        return findings or [_unused(facts)]
    devices = cdi.resolve(facts)
    if devices.clashes:
        findings.append(_duplicated(devices.clashes))
    in_use = tuple(dict.fromkeys(devices.used.values()))
    # Where CDI is the only way in, `gpu-runtime` fails for a GPU that is not listed and for a file that is gone.
    only_way = injection_modes(facts) in (("cdi",), ())
    gone = any(spec.missing for spec in in_use)
    if (stale := _stale(facts, needs, in_use)) and not (only_way and (gone or stale[0] != _OLD_DRIVER)):
        findings.append(stale[1])
    if findings:
        return findings
    if not in_use or (only_way and stale):
        return [skipped(_CHECK, title, "see the check gpu-runtime")]
    paths = ", ".join(spec.path for spec in in_use)
    driver = next((f", driver {spec.driver}" for spec in in_use if spec.driver), "")
    return [passed(_CHECK, f"{paths} lists the GPUs{driver}")]


def _unreadable(facts: HostFacts) -> list[Finding]:
    return [
        warned(
            _CHECK,
            "cdi-unreadable",
            f"the CDI specification {spec.path} cannot be used",
            cause=spec.problem,
            fix=_write_anew(spec.path)
            if PurePosixPath(spec.path).name in _WRITTEN_BY_TOOLKIT
            else f"Correct {spec.path}, or remove it where nothing uses it.",
        )
        for spec in facts.cdi
        if spec.problem and "nvidia" in spec.path.lower()
    ]


def _write_anew(path: str) -> str:
    return f"Write it anew: sudo nvidia-ctk cdi generate --output={shlex.quote(path)}"


def _unused(facts: HostFacts) -> Finding:
    """There is none that Docker reads, which is no fault where GPUs have another way."""
    specs = [spec for spec in cdi.gpu_specs(facts) if spec.devices]
    if not specs:
        return skipped(_CHECK, "CDI specifications", "there are none for GPUs")
    if not injection_modes(facts):
        return skipped(_CHECK, "CDI specifications", "see the check gpu-runtime")
    if facts.docker.cdi_spec_dirs is None:
        # The toolkit writes one by itself from 1.18 on, also where Docker is too old to read it: no warning.
        return passed(_CHECK, f"{specs[0].path} is there, and Docker does not read CDI", evidence=(_enable(facts),))
    return passed(_CHECK, str(cdi.names_of((), facts).problem))


def _enable(facts: HostFacts) -> str:
    docker = facts.docker
    add = f'add {{"features": {{"cdi": true}}}} to {config_path(docker)}, then {restart(docker)}'
    return f"GPUs have other ways; to turn CDI on as well, {add}"


def _duplicated(clashes: Mapping[str, Sequence[CdiSpec]]) -> Finding:
    files = sorted({spec.path for specs in clashes.values() for spec in specs})
    return warned(
        _CHECK,
        "cdi-duplicated",
        f"{len(files)} CDI specifications define the same GPUs",
        cause=f"Docker refuses a device that two files of one folder define: {', '.join(sorted(clashes)[:8])}",
        fix=f"Keep one of {', '.join(files)}, and delete the others.",
        evidence=tuple(files),
    )


_MISSING_GPU, _OLD_DRIVER, _MISSING_FILE = "gpu", "driver", "file"


def _stale(facts: HostFacts, needs: Needs, specs: Sequence[CdiSpec]) -> tuple[str, Finding] | None:
    """In which way the specifications that Docker uses are not of this host."""
    found = cdi.names_of(chosen_gpus(facts, needs), facts)
    if found.missing and found.problem and found.path and "both define" not in found.problem:
        gpus = ", ".join(str(g.index) for g in found.missing)
        title = f"the CDI specification does not know GPU {gpus}"
        return _MISSING_GPU, _stale_because(found.path, title, found.problem)
    loaded = facts.nvidia_kernel.module or facts.gpus.driver
    if facts.gpus.state == "mismatch":
        loaded = None  # it is of the libraries, and the module that runs is what has to go: `driver` fails for that
    for spec in specs:
        if spec.driver and loaded and spec.driver != loaded:
            title = f"{spec.path} is of driver {spec.driver}, and {loaded} is loaded"
            cause = "it was not written anew after the driver changed, so containers miss libraries of the driver"
            return _OLD_DRIVER, _stale_because(spec.path, title, cause)
    for spec in specs:
        if spec.missing:
            cause = "the driver changed or was removed since it was written; containers do not start without the files"
            title = f"{spec.path} names files that are not there"
            return _MISSING_FILE, _stale_because(spec.path, title, cause, spec.missing)
    return None


def _stale_because(path: str, title: str, cause: str, evidence: tuple[str, ...] = ()) -> Finding:
    return warned(_CHECK, "cdi-stale", title, cause=cause, fix=_write_anew(path), evidence=evidence)


CHECKS = (
    Check(
        _CHECK,
        "docker",
        "CDI specifications are of this driver, and list each GPU once",
        judge_cdi,
        ("cdi-duplicated", "cdi-stale", "cdi-unreadable"),
    ),
)
