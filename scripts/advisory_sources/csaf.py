"""NVIDIA's bulletins in CSAF 2.0, as https://github.com/NVIDIA/product-security holds them: YEAR/NUMBER/NUMBER.json."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisory_sources import SourceError, shapes
from nimctl.doctor.advisories import Advisory, Component, Range, order

_LINK = "https://github.com/NVIDIA/product-security/blob/main/{year}/{number}/{number}.md"
_TOOLKIT = "NVIDIA Container Toolkit"
_TOOLKIT_PLATFORMS = ("Linux", "All")
# The products of the display driver that run on a host of its own. Guest drivers and the Virtual GPU Manager have
# numbers of their own and are no matter for a host with whole GPUs.
_DRIVER = ("GeForce", "Tesla", "NVIDIA RTX, Quadro, NVS", "NVIDIA RTX PRO, RTX, Quadro")
_NO_HOST_DRIVER = ("Guest driver", "Virtual GPU Manager", "Studio")
_BRANCH = re.compile(r"Linux ?\(R(\d+)\)")


@dataclass(frozen=True)
class _Product:
    component: Component
    branch: int  # of the driver; 0 for the toolkit
    version: str  # the phrase


def read(path: Path, read_on: str) -> Iterator[tuple[Component, Advisory]]:
    """The advisories of one bulletin that concern the toolkit or the Linux driver; none for another product's.

    Raises SourceError, with the file's name, for whatever is not understood.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        tracking = document["document"]["tracking"]
        published = tracking["initial_release_date"][:10]
        products = dict(_products(document["product_tree"]))
        if not any(products.values()):
            return
        branches = sorted({p.branch for p in products.values() if p and p.component == "driver"})
        number = str(tracking["id"])
        link = _LINK.format(year=_year(path, published), number=number)
        for hole in document["vulnerabilities"]:
            for component, ranges in _ranges(hole["product_status"], products, branches):
                score = _score(hole)
                advisory = Advisory((hole["cve"],), link, score, published, read_on, ranges, bulletin=number)
                yield component, advisory
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise SourceError(f"{path}: not the shape of a CSAF bulletin: {error!r}") from error


def _year(path: Path, published: str) -> str:
    # The folder, since bulletins lie where they were first drafted; by the date where a file was taken out of it.
    year = path.parent.parent.name
    return year if re.fullmatch(r"20\d\d", year) else published[:4]


def _products(tree: dict[str, Any]) -> Iterator[tuple[str, _Product | None]]:
    """Product ids with what they are; None for what does not concern this host."""
    for vendor in tree["branches"]:
        for group in vendor["branches"]:
            if group["category"] == "product_family":
                continue  # names without versions, which no vulnerability refers to
            for leaf in group["branches"]:
                if leaf["category"] not in ("product_version", "product_version_range"):
                    raise SourceError(f"unknown category {leaf['category']!r} in the product tree")
                product = _product(leaf["name"], group["name"], leaf["product"]["name"])
                yield leaf["product"]["product_id"], product


def _product(name: str, platform: str, version: str) -> _Product | None:
    if name == _TOOLKIT:
        if platform in _TOOLKIT_PLATFORMS:
            return _Product("container-toolkit", 0, version)
    elif name in _NO_HOST_DRIVER:
        return None
    elif name in _DRIVER:
        if found := _BRANCH.fullmatch(platform):
            return _Product("driver", int(found[1]), version)
    elif re.search(r"container toolkit|display driver|\bgpu driver", name, re.IGNORECASE):
        raise SourceError(f"unknown product {name!r}, which could be one of ours")
    else:
        return None
    if platform.startswith(("Windows", "macOS", "Solaris", "FreeBSD")):
        return None
    raise SourceError(f"{name} on an unknown platform: {platform!r}")


def _score(hole: dict[str, Any]) -> float:
    scores = {float(score["cvss_v3"]["baseScore"]) for score in hole["scores"]}
    return max(scores)


def _ranges(
    status: dict[str, list[str]], products: dict[str, _Product | None], listed: list[int]
) -> Iterator[tuple[Component, tuple[Range, ...]]]:
    affected: dict[tuple[Component, int], list[shapes.Bound]] = {}
    fixed: dict[tuple[Component, int], list[str]] = {}
    for key in status["known_affected"]:
        if product := _known(key, products):
            affected.setdefault((product.component, product.branch), []).append(shapes.bound(product.version))
    for key in status.get("fixed", []):
        if product := _known(key, products):
            fixed.setdefault((product.component, product.branch), []).append(shapes.exact(product.version))
    toolkit = affected.pop(("container-toolkit", 0), None)
    if toolkit:
        yield "container-toolkit", (_one(toolkit, fixed.get(("container-toolkit", 0), []), "0"),)
    if affected:
        yield (
            "driver",
            tuple(
                _driver(
                    {
                        branch: _one(ends, fixed.get(("driver", branch), []), str(branch))
                        for (_, branch), ends in affected.items()
                    },
                    listed,
                )
            ),
        )


def _known(key: str, products: dict[str, _Product | None]) -> _Product | None:
    if key not in products:
        raise SourceError(f"product {key!r} is not in the product tree")
    return products[key]


def _one(ends: list[shapes.Bound], fixed: list[str], introduced: str) -> Range:
    """One range for all products of a branch.

    NVIDIA gives GeForce and Tesla their own first fixed build at times (570.86.16 and 570.86.15): the lower one ends
    the range, because what a bulletin calls fixed must not be called affected.
    """
    fix = min(fixed, key=_sortable) if fixed else None
    end = min(ends, key=lambda bound: _sortable(bound.version))
    if fix is None:
        return Range(introduced, None if end.inclusive else end.version, end.version if end.inclusive else None)
    after_end = _sortable(fix) > _sortable(end.version) if end.inclusive else _sortable(fix) >= _sortable(end.version)
    if not after_end:
        raise SourceError(f"{fix} is said to be fixed, and affected up to {end.version}")
    if introduced != "0" and not fix.startswith(f"{introduced}."):
        raise SourceError(f"{fix} is no fix for branch {introduced}")
    return Range(introduced, before=fix, last=end.version if end.inclusive else None, fixed=fix)


def _sortable(version: str) -> order.Key:
    key = order.key(version)
    if key is None:
        raise SourceError(f"{version!r} has no place in the order of versions")
    return key


def _driver(ranges: dict[int, Range], listed: list[int]) -> Iterator[Range]:
    """The ranges of the listed branches, and of the branches that the bulletin does not list.

    Of those NVIDIA says that they might be affected too, and to upgrade where no update is listed for them: a branch
    without an update is at its end. So a branch between two affected ones (or below the lowest) is affected without a
    fix; between an affected and an unaffected one it cannot be told; above the newest listed one it is newer than the
    bulletin.
    """
    below: int | None = None
    for branch in listed:
        sides = {branch in ranges} if below is None else {branch in ranges, below in ranges}
        start = "0" if below is None else str(below + 1)
        if True in sides and start != str(branch):
            yield Range(start, before=str(branch), certain=False not in sides)
        if branch in ranges:
            yield ranges[branch]
        below = branch
