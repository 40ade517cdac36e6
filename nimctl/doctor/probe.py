"""The one check that acts: a container as a run would start it, which must see the GPUs that this host sees.

It is the smoke test of NVIDIA's page (`docker run --rm --runtime=nvidia --gpus all ubuntu nvidia-smi`) with the user,
the mounts and the confinement of a real run, in each way in which GPUs get into containers here. Pure: who starts the
containers hands in what they said. NVIDIA's own page about CUDA in containers:
https://docs.nvidia.com/nim/large-language-models/3.0.0/troubleshooting/index.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostFacts
from nimctl.core.gpus import select
from nimctl.core.injection import WORDS, Mode
from nimctl.core.secret import redact
from nimctl.doctor import inside
from nimctl.doctor.model import Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.probe_words import Said, Seen, read

CHECK = "probe"
_GROUP = "probe"
_TITLE = "GPUs in a container"
_MOST_LINES, _LONGEST_LINE = 12, 300
# Error ids and the sentences for what the CUDA driver answers, by its code:
# https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html (CUresult)
_CUDA: Mapping[int, tuple[str, str, str]] = {
    100: (
        "cuda-no-device",
        "CUDA finds no device (100): their nodes were not handed over, or CUDA_VISIBLE_DEVICES names none",
        "Take CUDA_VISIBLE_DEVICES out of the image or of --env; then `sudo nvidia-modprobe -c 0 -u` on the host.",
    ),
    802: (
        "cuda-not-ready",
        "CUDA is not initialised (802): the NVLink fabric is not up, which the fabric manager has to do first",
        "Run `sudo systemctl enable --now nvidia-fabricmanager` in the driver's version; `nimctl doctor --only gpu` "
        "says what it lacks.",
    ),
    803: (
        "cuda-mismatch",
        "the CUDA library in the container is not of the driver that is loaded (803): the driver was updated, or the "
        "image's own compatibility library comes first",
        "Reboot after an update of the driver; else start with `--env LD_LIBRARY_PATH=/usr/local/nvidia/lib64`, or "
        "write the CDI specification anew (`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`).",
    ),
    804: (
        "cuda-compat-refused",
        "the image uses CUDA's forward compatibility, which these GPUs do not support (804)",
        "Install driver 580 or later, so that it is not needed: "
        "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/",
    ),
}


@dataclass(frozen=True)
class Verdict:
    """What became of one way in: it works, or the error that a run would meet."""

    mode: Mode
    problem: Finding | None
    cuda: int | None = None


def not_tried(facts: HostFacts, needs: Needs) -> Finding | None:
    """Why no container is started, None when there is something to compare."""
    if needs.runtime == "process" or needs.gpus == "none":
        return _grouped(skipped(CHECK, _TITLE, "no container with GPUs is wanted"))
    if facts.docker.state != "ok":
        return _grouped(skipped(CHECK, _TITLE, "Docker does not answer"))
    try:
        expected(facts, needs)
    except NimctlError as error:
        return _grouped(skipped(CHECK, _TITLE, error.message))
    if not expected(facts, needs):
        cause = "NVML gives no UUIDs on this host, so there is nothing to compare with"
        return _grouped(unknown(CHECK, _TITLE, cause=cause))
    return None


def expected(facts: HostFacts, needs: Needs) -> frozenset[str]:
    """The GPUs that a container must see. Raises `gpu-missing` or `gpu-spec-invalid`."""
    return frozenset(gpu.uuid for gpu in select(facts.gpus, needs.gpus or "all") if gpu.uuid)


def judge(facts: HostFacts, needs: Needs, said: Sequence[Said], image: str, note: str = "") -> list[Finding]:
    """The findings for what the containers said, the way that a run takes first. `note` tells of another image."""
    wanted = expected(facts, needs)
    verdicts = [_verdict(one, wanted, image, sliced=any(g.mig for g in facts.gpus.gpus)) for one in said]
    working = [v for v in verdicts if v.problem is None]
    evidence = (*_ways(verdicts), *([note] if note else []))
    first = verdicts[0]
    if first.problem is not None and not working:
        found = first.problem
        found = failed(
            CHECK, found.id, found.title, cause=found.cause, fix=found.fix, evidence=(*found.evidence, *evidence)
        )
    elif first.problem is not None:
        found = _another(first, working[0], evidence)
    else:
        cuda = "CUDA was not tried: the image has no libcuda" if first.cuda is None else f"CUDA starts on {first.cuda}"
        title = f"a container of {image} sees {len(wanted)} of {len(wanted)} GPUs"
        found = passed(CHECK, title, evidence=(*evidence, cuda))
    cached = next((f for one in said if (f := _cache(one, facts)) is not None), None)
    return [_grouped(f) for f in (found, cached) if f is not None]


def no_image(error: NimctlError) -> Finding:
    """The finding where there is no image to start."""
    title = f"the probe has no image: {error.message}"
    return _grouped(failed(CHECK, error.id, title, cause=error.cause, fix=error.fix, evidence=error.evidence))


def not_started(error: NimctlError) -> Finding:
    """The finding where nothing could be asked for: no way in, or a plan that cannot be made."""
    title = f"no container was started: {error.message}"
    return _grouped(failed(CHECK, error.id, title, cause=error.cause, fix=error.fix, evidence=error.evidence))


def _verdict(said: Said, wanted: frozenset[str], image: str, *, sliced: bool) -> Verdict:
    if said.error is not None:
        e = said.error
        title = f"the probe of {image} did not run: {e.message}"
        return Verdict(said.mode, failed(CHECK, e.id, title, cause=e.cause, fix=e.fix, evidence=e.evidence))
    seen = read(said)
    lines = tuple(
        redact(line)[:_LONGEST_LINE]
        for line in said.output.splitlines()[-_MOST_LINES:]
        if not line.startswith(inside.MARK)
    )
    title = f"a container of {image} sees {len(seen.uuids & wanted)} of {len(wanted)} GPUs"
    devices = None if seen.cuda is None else seen.cuda[1]
    if seen.uuids != wanted:
        return Verdict(said.mode, _differs(said, seen, wanted, title, lines), devices)
    if seen.cuda and seen.cuda[0]:
        return Verdict(said.mode, _cuda(seen.cuda[0], image, lines), devices)
    if seen.cuda and seen.cuda[1] != len(wanted) and not sliced:
        title = f"CUDA in a container of {image} sees {seen.cuda[1]} of {len(wanted)} GPUs"
        cause = "NVML sees all of them: CUDA_VISIBLE_DEVICES is set, or some are held by a program of their own"
        fix = "Take CUDA_VISIBLE_DEVICES out of the image or of --env; see `nimctl doctor --only gpu-compute-mode`."
        return Verdict(said.mode, failed(CHECK, "probe-failed", title, cause=cause, fix=fix, evidence=lines), devices)
    if said.code:
        cause, fix = f"the command ended with {said.code}", "Read the lines above; they are the container's own."
        return Verdict(said.mode, failed(CHECK, "probe-failed", title, cause=cause, fix=fix, evidence=lines), devices)
    return Verdict(said.mode, None, devices)


def _differs(said: Said, seen: Seen, wanted: frozenset[str], title: str, lines: tuple[str, ...]) -> Finding:
    if not seen.uuids:
        cause = f"the command ended with {said.code}" if said.code else seen.why_none
        fix = "Check the container toolkit: `nimctl doctor --only docker`."
    else:
        cause = f"missing: {_list(wanted - seen.uuids)}; not asked for: {_list(seen.uuids - wanted)}"
        fix = "Write the CDI specification anew (`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`)."
    return failed(CHECK, "probe-failed", title, cause=cause, fix=fix, evidence=lines)


def _cuda(code: int, image: str, lines: tuple[str, ...]) -> Finding:
    usual = (
        "probe-failed",
        f"CUDA does not start, and says {code}",
        "`sudo dmesg | grep -iE 'nvrm|xid'` on the host says why; try `sudo nvidia-modprobe -c 0 -u`.",
    )
    error_id, cause, fix = _CUDA.get(code, usual)
    title = f"CUDA does not start in a container of {image} ({code})"
    return failed(CHECK, error_id, title, cause=cause, fix=fix, evidence=lines)


def _another(first: Verdict, works: Verdict, evidence: tuple[str, ...]) -> Finding:
    """What a run takes by itself fails, and another way works."""
    cause = first.problem.cause if first.problem else ""
    return warned(
        CHECK,
        "probe-other-way",
        f"GPUs get into containers by {WORDS[works.mode]}, and a run would take another way",
        cause=f"{WORDS[first.mode]} fails: {cause}",
        fix=f"Set gpu_mode: {works.mode} in the configuration, or NIMCTL_GPU_MODE={works.mode}.",
        evidence=evidence,
    )


def _ways(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each way that was tried; the first is the one that a run takes."""
    return [
        f"{WORDS[v.mode]}: {'works' if v.problem is None else f'fails, {v.problem.cause}'}"
        f"{'; a run takes it' if number == 0 else ''}"
        for number, v in enumerate(verdicts)
    ]


def _cache(said: Said, facts: HostFacts) -> Finding | None:
    """Whether the server's user can write in the cache; None where this container did not try."""
    problem = read(said).cache
    if problem is None:
        return None
    if not problem:
        return passed(f"{CHECK}-cache", f"the container wrote, renamed and removed a file in {facts.cache.path}")
    step, _, why = problem.partition(": ")
    return failed(
        f"{CHECK}-cache",
        "cache-not-writable",
        f"the container cannot write the cache folder {facts.cache.path}",
        cause=f"its user could not {step} a file there: {why}",
        fix=f"Run `sudo nimctl cache init {facts.cache.path}`; `nimctl doctor --only storage` says more.",
    )


def _grouped(finding: Finding) -> Finding:
    return Finding(**{**vars(finding), "group": _GROUP})


def _list(uuids: frozenset[str]) -> str:
    return ", ".join(sorted(uuids)) or "none"


# For docs/checks.md: id, what it asks, why it matters, and the ids with which it fails or warns.
QUESTIONS = (
    (
        CHECK,
        "a container as `nimctl run` would start it sees every GPU, and CUDA starts in it (`--probe`)",
        "Only a container that is started can tell whether the image's CUDA libraries and the driver's get on, which\n"
        "differs by the way in which the GPUs got in: https://github.com/gpustack/gpustack/issues/4678. Each possible "
        "way is tried, for at most 20 s, with the user, the mounts\nand the confinement of a run, without keys, "
        "weights, ports and network; no container is left.",
        (*(error_id for error_id, _, _ in _CUDA.values()), "gpu-runtime-missing", "probe-failed", "probe-other-way"),
    ),
    (
        f"{CHECK}-cache",
        "that container can make, rename and remove a file in the cache (`--probe`)",
        "What owner, group and mode let expect is tried for real, as the container's own user:\n"
        "https://github.com/NVIDIA/nim-deploy/issues/109.",
        ("cache-not-writable",),
    ),
)
