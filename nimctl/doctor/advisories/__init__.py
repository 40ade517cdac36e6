"""Known security holes by component and version, and the first versions without them.

The data are generated from NVIDIA's bulletins and OSV records by `scripts/advisories`; how, and why a number alone
never accuses a distribution's build: docs/decisions/0010-advisories.md.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from nimctl.core.plain import from_plain
from nimctl.doctor.advisories import order

SCHEMA = "nimctl.advisories/1"

Component = Literal["driver", "container-toolkit", "docker-engine", "runc", "vllm"]
State = Literal["affected", "unaffected", "unknown"]
Origin = Literal["upstream", "distribution"]
# What of the host's configuration can remove a finding.
Condition = Literal["cdi-mode", "legacy-mode", "compat-hook-disabled", "crun"]

# How many numbers of a version make a branch in which its makers publish fixes: driver 580, Docker 25, runc 1.3. The
# toolkit and vLLM have one line of releases, in which the fix is always a later one.
_BRANCH_PARTS: Mapping[Component, int] = {
    "driver": 1,
    "container-toolkit": 0,
    "docker-engine": 1,
    "runc": 2,
    "vllm": 0,
}


@dataclass(frozen=True)
class Range:
    """Affected versions: from `introduced` up to but without `before`, or up to and with `last`; else all later ones.

    `fixed` is the first version without the hole in this branch, None where none was made. `certain` is False where
    the bulletin does not say whether versions of this range are affected (a driver branch that it does not list,
    between one that is affected and one that is not).
    """

    introduced: str
    before: str | None = None
    last: str | None = None
    fixed: str | None = None
    certain: bool = True

    def holds(self, version: order.Key) -> bool:
        """Whether a version is in the range."""
        start = order.key(self.introduced)
        if start is None or order.is_before(version, start):
            return False
        if self.before is not None:
            end = order.key(self.before)
            return end is not None and order.is_before(version, end)
        if self.last is not None:
            end = order.key(self.last)
            return end is not None and not order.is_before(end, version)
        return True


@dataclass(frozen=True)
class Mitigation:
    """What protects without an update. Where `when` holds, versions before `before` (None: all) are not affected."""

    text: str
    link: str
    when: Condition | None = None
    before: str | None = None


@dataclass(frozen=True)
class Advisory:
    """One hole: its CVE or GHSA names, the first is the best known; `score` is CVSS, `published` and `read` are dates.

    `bulletin` is NVIDIA's number of it. `only` names a precondition that the facts do not show.
    """

    ids: tuple[str, ...]
    link: str
    score: float
    published: str
    read: str
    ranges: tuple[Range, ...]
    bulletin: str | None = None
    mitigations: tuple[Mitigation, ...] = ()
    only: str | None = None

    @property
    def id(self) -> str:
        """The name to show."""
        return self.ids[0]


@dataclass(frozen=True)
class Assessment:
    """`advisories` that affect a version, worst first; `uncertain` ones may. `safe`: the version to update to."""

    state: State
    advisories: tuple[Advisory, ...] = ()
    uncertain: tuple[Advisory, ...] = ()
    safe: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Catalogue:
    schema: str
    read: str
    components: Mapping[str, tuple[Advisory, ...]]


def known(component: Component) -> tuple[Advisory, ...]:
    """All advisories of a component, worst first."""
    return _catalogue().components[component]


def read_on() -> str:
    """The day on which the data were read from their sources (YYYY-MM-DD)."""
    return _catalogue().read


def assess(
    component: Component,
    version: str | None,
    *,
    origin: Origin | None = "upstream",
    conditions: Collection[Condition] = (),
) -> Assessment:
    """What is known of `version`. `conditions` are those that are known to hold on this host.

    A distribution's build is "unknown": it carries fixes back without changing the number. So is one of an unknown
    builder (`origin` None), a version that cannot be read, and one that only uncertain ranges hold.
    """
    if version is None or (reason := _untold(version, origin)):
        return Assessment("unknown", reason="its version is not known" if version is None else reason)
    found = advisories_for(component, version, conditions=conditions)
    uncertain = _matching(component, version, conditions, certain=False)
    if found:
        return Assessment("affected", found, uncertain, _goal(component, version))
    if uncertain:
        reason = "the bulletins do not say whether this branch is affected"
        return Assessment("unknown", uncertain=uncertain, safe=_goal(component, version), reason=reason)
    return Assessment("unaffected")


def _untold(version: str, origin: Origin | None) -> str:
    """Why a number does not tell anything; empty where it does."""
    if origin == "distribution":
        return "a distribution built it, and carries fixes back without a new number"
    if origin is None:
        return "it is not known who built it, so its number does not tell"
    return "" if order.key(version) else f"{version} is no released version"


def advisories_for(
    component: Component, version: str, *, conditions: Collection[Condition] = ()
) -> tuple[Advisory, ...]:
    """The advisories that certainly affect an upstream release, worst first; empty for what cannot be read."""
    return _matching(component, version, conditions, certain=True)


def safe_version(component: Component, version: str) -> str | None:
    """The lowest version of the branch of `version` that no known advisory affects; None where there is none.

    A branch without any fix has reached its end; `maintained_version` then names the next branch that has not.
    """
    wanted = order.branch(version, _BRANCH_PARTS[component])
    for candidate in _safe_fixes(component):
        if order.branch(candidate, _BRANCH_PARTS[component]) == wanted:
            return candidate
    return version if wanted is not None and not _any(component, version) else None


def maintained_version(component: Component, version: str) -> str | None:
    """The lowest safe version that is later than `version`, of whichever branch; None where none is known."""
    mine = order.key(version)
    if mine is None:
        return None
    later = (fix for fix in _safe_fixes(component) if (theirs := order.key(fix)) and order.is_before(mine, theirs))
    return next(later, None)


def _goal(component: Component, version: str) -> str | None:
    return safe_version(component, version) or maintained_version(component, version)


def _matching(
    component: Component, version: str, conditions: Collection[Condition], *, certain: bool
) -> tuple[Advisory, ...]:
    mine = order.key(version)
    if mine is None:
        return ()
    return tuple(
        advisory
        for advisory in known(component)
        if any(r.certain == certain and r.holds(mine) for r in advisory.ranges)
        and not any(_protects(m, mine, conditions) for m in advisory.mitigations)
    )


def _protects(mitigation: Mitigation, version: order.Key, conditions: Collection[Condition]) -> bool:
    if mitigation.when is None or mitigation.when not in conditions:
        return False
    end = order.key(mitigation.before) if mitigation.before else None
    return end is None or order.is_before(version, end)


def _any(component: Component, version: str) -> bool:
    return bool(_matching(component, version, (), certain=True) or _matching(component, version, (), certain=False))


@cache
def _safe_fixes(component: Component) -> tuple[str, ...]:
    """The fixed versions of all advisories that no other advisory affects, lowest first; release candidates last."""
    fixes = {r.fixed for advisory in known(component) for r in advisory.ranges if r.fixed}
    keys = {fix: key for fix in fixes if (key := order.key(fix)) and not _any(component, fix)}
    return tuple(sorted(keys, key=lambda fix: (keys[fix][1] < 0, keys[fix])))


@cache
def _catalogue() -> _Catalogue:
    text = resources.files(__name__).joinpath("data.json").read_text(encoding="utf-8")
    return from_plain(_Catalogue, json.loads(text))
