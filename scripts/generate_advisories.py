"""Write nimctl/doctor/advisories/data.json from NVIDIA's CSAF bulletins and OSV records; `--check` only compares.

    scripts/advisories                                   from tests/data/advisories, offline
    scripts/advisories --check                           exit 1 when the file is not what the sources give
    scripts/advisories --csaf DIR --osv DIR --read DATE  from fresh downloads: a checkout of NVIDIA/product-security,
                                                         and folders of OSV records (runc, docker, moby, vllm)

Exit 2, and nothing is written, when a source says something that is not understood. The supplement holds what the
sources do not say in a form that can be read: our words for mitigations, fixes that only release notes name, scores
of CVSS 4 vectors, each with its link.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from advisory_sources import SourceError, csaf, osv

from nimctl.core.plain import from_plain, to_plain
from nimctl.doctor.advisories import SCHEMA, Advisory, Component, Mitigation, order

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "nimctl/doctor/advisories/data.json"
SOURCES = ROOT / "tests/data/advisories"
COMPONENTS: tuple[Component, ...] = ("driver", "container-toolkit", "docker-engine", "runc", "vllm")


def collect(
    folders: Mapping[str, list[Path]], read_on: str, supplement: Mapping[str, Any]
) -> dict[Component, list[Advisory]]:
    """All advisories by component, worst first. Raises SourceError."""
    found: dict[Component, list[Advisory]] = {component: [] for component in COMPONENTS}
    for path in _files(folders["csaf"]):
        if path.name == f"{path.parent.name}.json":  # beside the bulletins lie CVE records of another schema
            for component, advisory in csaf.read(path, read_on):
                found[component].append(advisory)
    records: dict[Component, list[Advisory]] = {}
    for path in _files(folders["osv"]):
        if one := osv.read(path, read_on, supplement):
            records.setdefault(one[0], []).append(one[1])
    for component, advisories in records.items():
        found[component] += osv.merged(advisories)
    empty = [component for component, advisories in found.items() if not advisories]
    if empty:
        raise SourceError(f"no advisory for {', '.join(empty)}: that is a missing source, not a safe world")
    used: set[str] = set()
    for advisories in found.values():
        advisories[:] = [_supplemented(a, supplement, used) for a in advisories]
        advisories.sort(key=lambda a: (-a.score, a.published, a.ids))
    if unused := set(supplement["mitigations"]) - used:
        raise SourceError(f"the supplement speaks of {', '.join(sorted(unused))}, which no source has")
    return found


def _files(folders: list[Path]) -> list[Path]:
    files = sorted(path for folder in folders for path in folder.rglob("*.json"))
    if not files:
        raise SourceError(f"no JSON file in {', '.join(map(str, folders))}")
    return files


def _supplemented(advisory: Advisory, supplement: Mapping[str, Any], used: set[str]) -> Advisory:
    ours = [name for name in advisory.ids if name in supplement["mitigations"]]
    used.update(ours)
    texts = [from_plain(Mitigation, m, name) for name in ours for m in supplement["mitigations"][name]]
    for mitigation in texts:
        if mitigation.before is not None and order.key(mitigation.before) is None:
            raise SourceError(f"supplement: {mitigation.before!r} is no version")
    only = next((supplement["only"][name] for name in advisory.ids if name in supplement.get("only", {})), None)
    return replace(advisory, mitigations=tuple(texts), only=only)


def rendered(found: Mapping[Component, list[Advisory]], read_on: str) -> str:
    """The file: one advisory a line, without the fields that have their default."""
    lines = ["{", f' "schema": "{SCHEMA}",', f' "read": "{read_on}",', ' "components": {']
    for component, advisories in found.items():
        rows = [f"   {json.dumps(_lean(to_plain(a)), ensure_ascii=False)}" for a in advisories]
        lines += [f'  "{component}": [', ",\n".join(rows), "  ]" + ("" if component == COMPONENTS[-1] else ",")]
    return "\n".join([*lines, " }", "}"]) + "\n"


def _lean(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lean(v) for k, v in value.items() if v not in (None, []) and not (k == "certain" and v is True)}
    return [_lean(v) for v in value] if isinstance(value, list) else value


def main(arguments: list[str] | None = None) -> int:
    """Write the file, or with `--check` say whether it is current."""
    parser = argparse.ArgumentParser(description="Generate the table of known security holes.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is not current")
    parser.add_argument("--csaf", type=Path, action="append", help="a folder with YEAR/NUMBER/NUMBER.json; repeatable")
    parser.add_argument("--osv", type=Path, action="append", help="a folder with OSV records; repeatable")
    parser.add_argument("--supplement", type=Path, default=SOURCES / "supplement.json")
    parser.add_argument("--read", help="the day on which the sources were downloaded (default: the supplement's)")
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args(arguments)
    try:
        supplement = json.loads(options.supplement.read_text(encoding="utf-8"))
        read_on = options.read or supplement["read"]
        folders = {"csaf": options.csaf or [SOURCES / "csaf"], "osv": options.osv or [SOURCES / "osv"]}
        found = collect(folders, read_on, supplement)
    except (SourceError, OSError, ValueError) as error:
        print(f"advisories: {error}", file=sys.stderr)
        return 2
    text = rendered(found, read_on)
    if options.check:
        current = options.output.exists() and options.output.read_text(encoding="utf-8") == text
        print(f"{options.output.name} is {'current' if current else 'stale: run scripts/advisories'}")
        return 0 if current else 1
    options.output.write_text(text, encoding="utf-8")
    counts = ", ".join(f"{len(a)} {component}" for component, a in found.items())
    print(f"{options.output}: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
