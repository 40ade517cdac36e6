"""How the weights come from the disk into memory. Pure: facts in, a plan with its reason out.

With its files in the page cache plain safetensors loads faster than the loaders that bypass it, from cold storage ten
times slower; the engine imports for seconds before it reads a byte. So the files are read ahead meanwhile:
https://github.com/scitix/InstantTensor/blob/main/docs/benchmark.md , https://github.com/vllm-project/vllm/pull/57973
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from nimctl.core.engine_options import Option, options_of

NETWORK = frozenset(
    {"nfs", "nfs4", "lustre", "ceph", "cifs", "smb3", "9p", "virtiofs", "beegfs", "gpfs", "wekafs", "glusterfs", "afs"}
)
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "hugetlbfs"})
# These read through the page cache; the other loaders have their own ways: vllm/config/load.py.
_CACHED_FORMATS = frozenset({"auto", "hf", "safetensors", "mistral"})
# The filter as the user wants it, or redundant experts, with which vLLM ignores it.
_OWN_WORD_ON_EXPERTS = frozenset({"enable-ep-weight-filter", "no-enable-ep-weight-filter", "enable-eplb"})
_FITS = 0.8  # of the available memory: the engine needs some while it loads
_RESIDENT = 0.95
_EAGER = 0.5  # of the available memory, for one file of each rank

Prefetch = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Facts:
    """What decides. Bytes; `resident` is the share of the files already in memory and `available` what is free, None
    where nobody knows; `ranks` are the engine's processes here; `experts` tells of whole experts on more than one rank.
    """

    total: int
    largest: int
    filesystem: str
    available: int | None
    resident: float | None
    ranks: int
    nodes: int = 1
    experts: bool = False
    wanted: Prefetch = "auto"


@dataclass(frozen=True)
class LoadPlan:
    """Whether to read ahead, with how many threads, by reading (not only by asking the kernel), and what the engine is
    told. `because` is for people; `limit` the bytes that are read at most.
    """

    ahead: bool
    because: str
    threads: int = 0
    reads: bool = False
    limit: int = 0
    options: tuple[Option, ...] = ()


def is_network(filesystem: str) -> bool:
    """Whether files come over a network, or through a program that may fetch them from one."""
    return filesystem in NETWORK or filesystem.startswith("fuse")


def plan(facts: Facts, given: Sequence[Option]) -> LoadPlan:
    """What to do about these weights; `given` are the options of recipe and user, which are never contradicted."""
    values = {option.name: option.values for option in given}
    load_format = next(iter(values.get("load-format", ())), "auto")
    if load_format not in _CACHED_FORMATS:
        return LoadPlan(ahead=False, because=f"--load-format {load_format} reads in its own way")
    threaded = _is_threaded(values)
    filtering = _filter(facts, values, threaded=threaded)
    ahead, because = _ahead(facts)
    strategy: dict[str, str | int | float | bool] = {}
    if "safetensors-load-strategy" in values:
        because += f"; --safetensors-load-strategy {' '.join(values['safetensors-load-strategy'])} as given"
    elif not threaded:
        strategy, why = _strategy(facts, ahead=ahead)
        because += why
    network = is_network(facts.filesystem)
    return LoadPlan(
        ahead,
        because,
        threads=0 if not ahead else 16 if network else 4,
        reads=network,
        limit=facts.total if facts.available is None else int(facts.available * _FITS),
        options=options_of({**strategy, **filtering}),
    )


def _ahead(facts: Facts) -> tuple[bool, str]:
    """Whether to read ahead, and why: the first line that is true."""
    size, forced = f"{facts.total / 1e9:.1f} GB", facts.wanted == "on"
    free = None if facts.available is None else f"{facts.available / 1e9:.1f} GB of free memory"
    rules = (
        (facts.wanted == "off", False, "NIM_WEIGHTS_PREFETCH=off"),
        (facts.total == 0, False, "there are no safetensors files"),
        (facts.filesystem in _IN_MEMORY, False, f"{facts.filesystem} is memory"),
        ((facts.resident or 0.0) >= _RESIDENT, False, f"{size} are in memory already"),
        (forced, True, f"{size} on {facts.filesystem}, NIM_WEIGHTS_PREFETCH=on"),
        (free is None, False, "nobody knows how much memory is free"),
        (facts.total > (facts.available or 0) * _FITS, False, f"{size} do not fit into {free}"),
        (facts.nodes > 1, False, f"this machine is one of {facts.nodes} and needs a part of {size}"),
        (True, True, f"{size} on {facts.filesystem} fit into {free}"),
    )
    return next((ahead, because) for true, ahead, because in rules if true)


def _strategy(facts: Facts, *, ahead: bool) -> tuple[dict[str, str | int | float | bool], str]:
    """The engine's own way to load, where its default (memory-mapped files) is not the best."""
    if not is_network(facts.filesystem):
        return {}, ""
    if ahead:  # else each rank reads the same files ahead once more
        return {"safetensors-load-strategy": "lazy"}, "; the engine need not read ahead itself"
    fits = facts.available is not None and facts.ranks * facts.largest <= facts.available * _EAGER
    if facts.wanted != "off" and fits and not facts.experts and (facts.resident or 0.0) < _RESIDENT:
        # Faults of single pages over a network are slow; whole experts are skipped only where files are mapped.
        return {"safetensors-load-strategy": "eager"}, "; each file is read as a whole, as it comes over a network"
    return {}, ""


def _filter(
    facts: Facts, values: Mapping[str, Sequence[str]], *, threaded: bool
) -> dict[str, str | int | float | bool]:
    """Each rank reads its own experts only: 87 % less at eight ranks (https://github.com/vllm-project/vllm/pull/37136).

    Loading by many threads switches it off silently: https://github.com/vllm-project/vllm/issues/48827
    """
    if not facts.experts or threaded or values.keys() & _OWN_WORD_ON_EXPERTS:
        return {}
    return {"enable-ep-weight-filter": True}


def _is_threaded(values: Mapping[str, Sequence[str]]) -> bool:
    text = next(iter(values.get("model-loader-extra-config", ())), "")
    with suppress(ValueError):
        extra = json.loads(text or "{}")
        return isinstance(extra, dict) and bool(extra.get("enable_multithread_load"))
    return "enable_multithread_load" in text
