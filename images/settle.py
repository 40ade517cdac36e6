"""End one step of the build so that the same inputs give the same layer, bit by bit, whenever and wherever it runs.

    python settle.py SINCE ROOTS [FOLDER]        SINCE: seconds since 1970 at which the step began

Compiles the Python below FOLDER that came new (but for what `cold.txt` beside this file names), keeps what pip reports
of the files it installed, and gives one time to everything that this step wrote below ROOTS (folders with a colon
between), and to what holds them.

Bytecode differs from run to run in two ways: pip and compileall note file times, and `marshal` marks an object for
reuse by its reference count, which depends on what the process compiled before. So the files are dealt out, sorted, to
a fixed number of fresh processes. The container's root is read-only and nothing edits these files later, so that
bytecode is not checked against its source either: https://docs.python.org/3/library/py_compile.html
"""
# ruff: noqa: T201

import fnmatch
import json
import os
import py_compile
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# 2000-01-01: not before 1980, which archives of Python's zipfile cannot hold, and before every release of a package.
TIME = 946684800
HANDS = 4  # fixed, whatever the machine has: it is part of what makes two builds equal
COLD = Path(__file__).with_name("cold.txt")
REPORTS = Path("/tmp")  # noqa: S108 (in a build, where nobody else is)
KEPT = Path("/opt/nim/etc/wheels.json")


def mounted() -> set[str]:
    """Where other filesystems begin: secrets, bound files, /proc, the resolver's configuration."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return {line.split()[4].replace("\\040", " ") for line in lines} - {"/"}


def written(since: float, roots: list[Path]) -> Iterator[str]:
    """Everything below `roots` that was made or changed from `since` on, then what holds them or a mount."""
    elsewhere = mounted()

    def below(folder: str) -> Iterator[str]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.path in elsewhere:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from below(entry.path)
                if entry.stat(follow_symlinks=False).st_ctime >= since:
                    yield entry.path

    for root in roots:
        yield from below(str(root))
    # BuildKit makes the places of its mounts before the step begins.
    holders = {parent for point in elsewhere for parent in Path(point).parents}
    inside = {path for path in holders if any(str(part) in elsewhere for part in (path, *path.parents))}
    yield from sorted(str(path) for path in (holders - inside).union(roots, *(root.parents for root in roots)))


def cold(path: str, patterns: list[str]) -> bool:
    """Whether no server imports this file, or only one that serves a model out of hundreds."""
    named = [pattern for pattern in patterns if fnmatch.fnmatchcase(path, pattern.removeprefix("!"))]
    return bool(named) and not any(pattern.startswith("!") for pattern in named)


def sources(folder: Path, since: float) -> list[str]:
    """The Python files below `folder` that are new and not cold, sorted."""
    lines = COLD.read_text(encoding="utf-8").splitlines() if COLD.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    found = (path for path in folder.rglob("*.py") if path.stat().st_ctime >= since)
    return sorted(str(path) for path in found if not cold(path.relative_to(folder).as_posix(), patterns))


def compile_all(paths: list[str]) -> None:
    """Compile in HANDS fresh processes; what is no valid Python (templates, fixtures) is passed over, and never ran."""
    if not paths:
        return
    command = [sys.executable, "-s", "-S", __file__, "--compile"]
    environ = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    running = []
    for hand in range(HANDS):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environ, text=True)
        running.append((process, "\n".join(paths[hand::HANDS])))
    for process, lines in running:  # each reads all of its list before it compiles
        if process.stdin is not None:
            process.stdin.write(lines)
            process.stdin.close()
    codes = [process.wait() for process, _ in running]
    if any(codes):
        raise SystemExit("a file could not be compiled")


def compile_listed() -> int:
    """Compile the files that stdin names; returns 0."""
    import warnings  # noqa: PLC0415 (of this process alone)

    warnings.simplefilter("ignore")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for path in sys.stdin.read().splitlines():
        try:
            py_compile.compile(path, doraise=True, quiet=2, invalidation_mode=unchecked)
        except (py_compile.PyCompileError, ValueError, RecursionError):
            continue
    return 0


def keep_reports() -> None:
    """Add name, version and SHA-256 of the files that pip installed; its addresses may hold a host's secrets."""
    for report in sorted(REPORTS.glob("pip-report*.json")):
        known = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
        for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
            about, archive = item["metadata"], item["download_info"].get("archive_info", {})
            digest = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").removeprefix("sha256=")
            name = re.sub(r"[-_.]+", "-", about["name"]).lower()
            known[name] = {"version": about["version"], "sha256": digest}
        report.unlink()
        KEPT.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        KEPT.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> int:
    """Settle what changed since the time named on the command line; returns 0."""
    since, roots = float(sys.argv[1]), [Path(root) for root in sys.argv[2].split(":")]
    keep_reports()
    if sys.argv[3:]:
        compile_all(sources(Path(sys.argv[3]), since))
    paths = list(written(since, roots))
    for path in paths:
        if os.lstat(path).st_mtime > TIME:
            os.utime(path, (TIME, TIME), follow_symlinks=False)
    print(f"{len(paths)} files and folders are settled")
    return 0


if __name__ == "__main__":
    sys.exit(compile_listed() if "--compile" in sys.argv else main())
