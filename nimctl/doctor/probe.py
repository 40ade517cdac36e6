"""The one check that acts: a container is started and must see the GPUs that this host sees.

It is the smoke test of NVIDIA's page (`docker run --rm --runtime=nvidia --gpus all ubuntu nvidia-smi`), with an answer
that a program reads.
"""

import json
import re
from collections.abc import Callable, Sequence

from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostFacts
from nimctl.core.gpus import GpuInventory, select
from nimctl.core.plain import from_plain
from nimctl.core.secret import redact
from nimctl.doctor.model import Finding, Needs, failed, passed, skipped, unknown

# (image, command, --gpus value) -> (exit code, what it printed). The caller injects GPUs as a run would.
RunContainer = Callable[[str, Sequence[str], str], tuple[int, str]]

CHECK = "probe"
# Our images hold this same package, so both sides are read by the same code.
OUR_COMMAND = (
    "python3",
    "-c",
    "import json; from nimctl.core.gpus import read_inventory; from nimctl.core.plain import to_plain; "
    "print(json.dumps(to_plain(read_inventory())))",
)
OTHER_COMMAND = ("nvidia-smi", "-L")
_SMI_LINE = re.compile(r"^GPU \d+: .*\(UUID: (GPU-[0-9A-Za-z-]+)\)", re.MULTILINE)
_MOST_LINES, _LONGEST_LINE = 12, 300


def probe(facts: HostFacts, needs: Needs, image: str, run_container: RunContainer, *, ours: bool) -> Finding:
    """Start `image` with the GPUs that were asked for, and compare what it sees with what this host sees.

    `ours` says that the image holds our Python. Errors of `run_container` become the finding.
    """
    title = "GPUs in a container"
    if needs.runtime == "process" or needs.gpus == "none":
        return skipped(CHECK, title, "no container with GPUs is wanted")
    spec = needs.gpus or "all"
    try:
        outside = {gpu.uuid for gpu in select(facts.gpus, spec) if gpu.uuid}
    except NimctlError as error:
        return skipped(CHECK, title, error.message)
    if not outside:
        return unknown(CHECK, title, cause="NVML gives no UUIDs on this host, so there is nothing to compare with")
    try:
        code, output = run_container(image, OUR_COMMAND if ours else OTHER_COMMAND, spec)
    except NimctlError as error:
        return _failed(f"the probe of {image} did not run: {error.message}", error.cause, error.fix, error.evidence)
    return _compare(outside, _seen(output, ours=ours), code, output, image)


def _seen(output: str, *, ours: bool) -> tuple[set[str], str]:
    """The UUIDs in the output, and why there are none."""
    if not ours:
        return set(_SMI_LINE.findall(output)), "nvidia-smi lists no GPU"
    for line in reversed(output.splitlines()):
        try:
            inventory = from_plain(GpuInventory, json.loads(line))
        except ValueError:
            continue  # a line that something else printed
        return {g.uuid for g in inventory.gpus if g.uuid}, inventory.detail or "NVML lists no GPU"
    return set(), "the container did not say what it sees"


def _compare(outside: set[str], seen: tuple[set[str], str], code: int, output: str, image: str) -> Finding:
    inside, why_none = seen
    evidence = tuple(redact(line)[:_LONGEST_LINE] for line in output.splitlines()[-_MOST_LINES:])
    if code == 0 and inside == outside:
        return passed(CHECK, f"a container of {image} sees {len(inside)} of {len(outside)} GPUs")
    if not inside:
        cause = f"the command ended with {code}" if code else why_none
        fix = "Check the container toolkit: `nimctl doctor --only docker`."
    elif inside != outside:
        cause = f"missing: {_list(outside - inside)}; not asked for: {_list(inside - outside)}"
        fix = "Write the CDI specification anew (`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`)."
    else:
        cause, fix = f"the command ended with {code}", "Read the lines above; they are the container's own."
    return _failed(f"a container of {image} sees {len(inside & outside)} of {len(outside)} GPUs", cause, fix, evidence)


def _failed(title: str, cause: str, fix: str, evidence: Sequence[str]) -> Finding:
    return failed(CHECK, "probe-failed", title, cause=cause, fix=fix, evidence=tuple(evidence))


def _list(uuids: set[str]) -> str:
    return ", ".join(sorted(uuids)) or "none"
