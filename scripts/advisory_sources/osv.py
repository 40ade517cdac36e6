"""Records of the OSV schema (https://ossf.github.io/osv-schema/), one JSON file each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisory_sources import SourceError, cvss, shapes
from nimctl.doctor.advisories import Advisory, Component, Range, order

# Docker Engine is published as two Go modules up to 28. The third one, moby/v2, has numbers of its own that are not
# the Engine's: fixes that only it names stand in the supplement.
_PACKAGES: Mapping[tuple[str, str], Component | None] = {
    ("Go", "github.com/opencontainers/runc"): "runc",
    ("Go", "github.com/docker/docker"): "docker-engine",
    ("Go", "github.com/moby/moby"): "docker-engine",
    ("Go", "github.com/moby/moby/v2"): None,
    ("PyPI", "vllm"): "vllm",
}
_PREFERRED = ("GHSA-", "PYSEC-", "GO-")  # whose ranges count when several records describe one hole


def read(path: Path, read_on: str, supplement: Mapping[str, Any]) -> tuple[Component, Advisory] | None:
    """The advisory of one record; None for a withdrawn one and for packages that are not ours.

    Raises SourceError, with the file's name, for whatever is not understood.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("withdrawn"):
            return None
        ids = _ids(record)
        components = {c for a in record["affected"] if (c := _component(a))}
        if not components or set(ids) & set(supplement.get("ignored", {})):
            return None
        if len(components) > 1:
            raise SourceError(f"one record for {', '.join(sorted(components))}")
        component = components.pop()
        ranges = [r for a in record["affected"] if _component(a) for r in _ranges(a)]
        fixes = next((supplement["fixes"][name] for name in ids if name in supplement.get("fixes", {})), None)
        if any(r.fixed is None and r.last is None for r in ranges):
            if fixes is None:
                raise SourceError(f"{ids[0]} names no fix; the supplement's `fixes` has none either (empty: unfixed)")
            ranges = _fixed_by_hand(fixes["fixed"])
        unique = tuple(sorted(dict.fromkeys(ranges), key=lambda r: _sortable(r.introduced)))
        score = _score(record, supplement.get("cvss4", {}).get("scores", {}))
        return component, Advisory(ids, _link(record), score, record["published"][:10], read_on, unique)
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise SourceError(f"{path}: not the shape of an OSV record: {error!r}") from error


def merged(advisories: list[Advisory]) -> list[Advisory]:
    """One advisory for each hole: records that share a name are one, with the names of all."""
    groups: list[list[Advisory]] = []
    for advisory in advisories:
        same = [g for g in groups if any(set(a.ids) & set(advisory.ids) for a in g)]
        groups = [g for g in groups if g not in same] + [[advisory, *(a for g in same for a in g)]]
    return [_merge(group) for group in groups]


def _merge(group: list[Advisory]) -> Advisory:
    first = min(group, key=lambda a: (_rank(a), a.ids))
    ids = _ordered({name for a in group for name in a.ids})
    return Advisory(ids, first.link, first.score, min(a.published for a in group), first.read, first.ranges)


def _rank(advisory: Advisory) -> int:
    ranks = [i for i, start in enumerate(_PREFERRED) if advisory.link.find(start) >= 0]
    return min(ranks, default=len(_PREFERRED))


def _ids(record: dict[str, Any]) -> tuple[str, ...]:
    # PyPA's records in preparation are called PYSEC-0000-...: those names do not last.
    names = {record["id"], *record.get("aliases", [])}
    return _ordered({n for n in names if not n.startswith("PYSEC-0000-")})


def _ordered(names: set[str]) -> tuple[str, ...]:
    starts = ("CVE-", "GHSA-", *_PREFERRED)
    if not names:
        raise SourceError("the record has no lasting name")
    return tuple(sorted(names, key=lambda n: (next((i for i, s in enumerate(starts) if n.startswith(s)), 9), n)))


def _component(affected: dict[str, Any]) -> Component | None:
    package = affected["package"]
    return _PACKAGES.get((package["ecosystem"], package["name"]))


def _ranges(affected: dict[str, Any]) -> list[Range]:
    ranges = [r for r in affected.get("ranges", []) if r["type"] in ("SEMVER", "ECOSYSTEM")]
    if not ranges:
        raise SourceError("affected versions are not given as ranges")
    return [span for r in ranges for span in _spans(r["events"])]


def _spans(events: list[dict[str, str]]) -> list[Range]:
    spans: list[Range] = []
    start: str | None = None
    for event in events:
        ((kind, value),) = event.items()
        version = "0" if value == "0" else shapes.release(value)
        if kind == "introduced":
            if start is not None:
                raise SourceError(f"introduced twice: {start} and {version}")
            start = version
        elif kind in ("fixed", "last_affected") and start is not None:
            fixed = kind == "fixed"
            spans.append(Range(start, before=version, fixed=version) if fixed else Range(start, last=version))
            start = None
        else:
            raise SourceError(f"unknown event {event!r}")
    if start is not None:
        spans.append(Range(start))
    return spans


def _fixed_by_hand(fixes: list[str]) -> list[Range]:
    """Ranges that end at each fix, and begin anew with the next major version."""
    ranges, start = [], "0"
    for fix in sorted((shapes.release(f) for f in fixes), key=_sortable):
        ranges.append(Range(start, before=fix, fixed=fix))
        start = str(int(fix.split(".")[0]) + 1)
    return ranges or [Range("0")]


def _sortable(version: str) -> order.Key:
    key = order.key(version)
    if key is None:
        raise SourceError(f"{version!r} has no place in the order of versions")
    return key


def _score(record: dict[str, Any], known: Mapping[str, float]) -> float:
    vectors = [entry["score"] for entry in record.get("severity", [])]
    if not vectors:
        raise SourceError("the record has no CVSS vector")
    third = [v for v in vectors if v.startswith("CVSS:3.")]
    return cvss.base_score((third or vectors)[0], known)


def _link(record: dict[str, Any]) -> str:
    urls = [r["url"] for r in record.get("references", [])]
    advisory = [u for u in urls if "/security/advisories/GHSA-" in u]
    if not (advisory or urls):
        raise SourceError("the record has no reference")
    own = [u for u in advisory if any(u.endswith(name) for name in (record["id"], *record.get("aliases", [])))]
    return (own or advisory or urls)[0]
