"""What the checks of GPUs have in common: how GPUs are named in a line, and which kind of GPU a name means."""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from nimctl.core.facts import HostFacts
from nimctl.core.gpus import Gpu, count_of
from nimctl.doctor.checks.scope import chosen_gpus, no_gpu_wanted
from nimctl.doctor.model import Needs

EVIDENCE = 16  # lines

# Product names as NVML spells them: "NVIDIA H100 80GB HBM3" (SXM), "NVIDIA H100 PCIe", "NVIDIA H200",
# "NVIDIA H200 NVL", "NVIDIA B300 SXM6 AC", "NVIDIA GB200", "Tesla T4". https://docs.nvidia.com/datacenter/tesla/drivers/index.html
_DATA_CENTRE = re.compile(
    r"^Tesla |^NVIDIA (?:A(?:2|10G?|16|30|40|100|800)|H(?:20|100|200|800)|B(?:100|200|300)|GB[23]00|GH200"
    r"|L(?:2|4|20|40S?))\b"
)
_SXM = re.compile(r"SXM[3-9]|^NVIDIA (?:H(?:20|100|200|800)|B(?:100|200|300)|GB[23]00)\b")
_CARD = re.compile(r"PCIe|NVL\b")
_RACK = re.compile(r"^NVIDIA GB[23]00\b")
_BLACKWELL_BOARD = re.compile(r"^NVIDIA B(?:100|200|300)\b")


def nothing_to_judge(facts: HostFacts, needs: Needs) -> str:
    """Why there is no GPU of which a question could be asked; empty when there is one."""
    if reason := no_gpu_wanted(needs) or no_driver(facts) or no_gpu(facts):
        return reason
    return "" if chosen_gpus(facts, needs) else "the choice of GPUs is not valid"


def no_driver(facts: HostFacts) -> str:
    """Why NVML says nothing; the check `driver` says what to do about it."""
    return "" if facts.gpus.state == "ok" else "no driver answers"


def no_gpu(facts: HostFacts) -> str:
    """Why there is nothing to choose from; the check `gpus` says what to do about it."""
    return "" if any(g.error is None for g in facts.gpus.gpus) else "no GPU answers"


def ranges(gpus: Iterable[Gpu]) -> str:
    """Their indices for people, such as "0-3,7"."""
    runs = _runs(sorted({g.index for g in gpus}))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Ascending indices as the first and the last of each unbroken run."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return runs


def named_one_by_one(needs: Needs) -> frozenset[str]:
    """The names that `--gpus` gives one by one; none for `all` and for a count."""
    given = needs.gpus or "all"
    wanted = given.strip().strip("\"'").removeprefix("device=")
    if wanted == "all" or count_of(given) is not None:
        return frozenset()
    return frozenset(part.strip() for part in wanted.split(","))


def lost_ones_needed(facts: HostFacts, needs: Needs) -> bool:
    """Whether a GPU that does not answer is among those that were asked for."""
    lost, named = [g for g in facts.gpus.gpus if g.error is not None], named_one_by_one(needs)
    return bool(lost) if not named else any(str(g.index) in named or g.uuid in named for g in lost)


def commas(gpus: Iterable[Gpu]) -> str:
    """Their indices for a command, such as "0,1,2,3,7"; nvidia-smi and docker know no ranges, but the shell does."""
    indices = sorted({g.index for g in gpus})
    if len(indices) <= EVIDENCE:
        return ",".join(map(str, indices))
    words = (f"{{{first}..{last}}}" if first != last else str(first) for first, last in _runs(indices))
    return f"$(echo {' '.join(words)} | tr ' ' ,)"


def smi(option: str, gpus: Sequence[Gpu], facts: HostFacts) -> str:
    """The command for these GPUs; without `-i` nvidia-smi means all of the host."""
    only = "" if len(gpus) == len(facts.gpus.gpus) else f" -i {commas(gpus)}"
    return f"`sudo nvidia-smi {option}{only}`"


def lines(gpus: Iterable[Gpu], say: Callable[[Gpu], object]) -> tuple[str, ...]:
    """A line of evidence for each of the first GPUs."""
    return tuple(f"GPU {g.index}: {say(g)}" for g in islice(gpus, EVIDENCE))


def is_data_centre(gpu: Gpu) -> bool:
    """Whether it is built for servers: those are expected to keep their state, count errors and use the whole slot."""
    return _DATA_CENTRE.search(gpu.name or "") is not None


def is_sxm(gpu: Gpu) -> bool:
    """Whether it sits on a board whose GPUs are all joined by NVLink, and not on a card."""
    name = gpu.name or ""
    return _SXM.search(name) is not None and _CARD.search(name) is None


def is_rack(gpu: Gpu) -> bool:
    """Whether its NVLink switches stand in trays of their own and are managed there (GB200 NVL72 and later)."""
    return _RACK.search(gpu.name or "") is not None


def is_blackwell_board(gpu: Gpu) -> bool:
    """Whether it belongs on an HGX B200 or B300 board, whose switches are reached as InfiniBand devices."""
    return _BLACKWELL_BOARD.search(gpu.name or "") is not None
