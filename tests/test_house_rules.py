"""The rules of the house: import directions, one importer a package, no cycles, one error catalogue, plain language."""

import ast
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest

from nimctl.core.errors import CATALOGUE

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("nimctl/**/*.py"), *ROOT.glob("entrypoint/**/*.py")])

# What a room may import of the other rooms. Arrows point down; the two sideways ones are named.
ROOMS = {
    "nimctl.core": {"nimctl.core"},
    "nimctl.registry": {"nimctl.registry", "nimctl.core"},
    "nimctl.launch": {"nimctl.launch", "nimctl.core"},
    "nimctl.doctor": {"nimctl.doctor", "nimctl.core", "nimctl.launch.docker"},  # the one who can ask the daemon
    "nimctl.images": {"nimctl.images", "nimctl.core"},
    "nimctl.trust": {"nimctl.trust", "nimctl.core"},
    "nimctl.lock": {"nimctl.lock", "nimctl.core"},
    "nimctl.bundle": {"nimctl.bundle", "nimctl.core"},
    "nimctl.render": {"nimctl.render", "nimctl.core"},
    "nimctl.cli": {"nimctl"},
    "nimctl.__main__": {"nimctl"},
    "entrypoint": {"entrypoint", "nimctl.core"},
}

# Each third-party package and its one importer (a module, or a package where it is one room).
IMPORTERS = {
    "typer": "nimctl.cli",
    "rich": "nimctl.render",
    "docker": "nimctl.launch.docker",
    "yaml": "nimctl.core.yamlfile",
    "pynvml": "nimctl.core.gpus",
    "requests": "nimctl.core.fetch.http",
    "obstore": "nimctl.core.fetch.sources.objectstore",
    "cryptography": "nimctl.trust.keys",
    "sigstore": "nimctl.trust.keyless",
    "sigstore_models": "nimctl.trust.keyless",
    "model_signing": "nimctl.trust.weights",
}


def module_name(path: Path) -> str:
    """`nimctl/core/errors.py` as `nimctl.core.errors`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Absolute names of all imported modules; `from a.b import c` gives `a.b` and `a.b.c`."""
    tree = tree_of(path)
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def inside(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_arrows_point_down(path: Path) -> None:
    me = module_name(path)
    room = next((r for r in ROOMS if inside(me, r)), None)
    allowed = ROOMS[room] if room else set()
    ours = {n for n in imports_of(path) if n.split(".")[0] in ("nimctl", "entrypoint")}
    modules = {module_name(p) for p in SOURCES}
    ours &= modules | {"nimctl"}
    wrong = {n for n in ours if n != "nimctl" and not any(inside(n, a) for a in allowed)}
    # `from nimctl import __version__` reads the bare package: the version, nothing else.
    assert not wrong, f"{me} (room {room}) imports {sorted(wrong)}"


@pytest.mark.parametrize(("package", "importer"), IMPORTERS.items())
def test_one_importer_a_package(package: str, importer: str) -> None:
    importers = {module_name(p) for p in SOURCES if any(inside(n, package) for n in imports_of(p))}
    assert all(inside(i, importer) for i in importers), f"{package} is imported by {sorted(importers)}"


def test_neither_side_imports_the_engine() -> None:
    for path in SOURCES:
        names = {n.split(".")[0] for n in imports_of(path)}
        assert not names & {"vllm", "torch", "numpy", "transformers"}, module_name(path)


def needed_modules(path: Path, modules: Collection[str]) -> set[str]:
    """The modules that `path` imports; of `from a.package import module` the module, as if named in full."""
    needed: set[str] = set()
    for node in tree_of(path).body:
        if isinstance(node, ast.Import):
            needed |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            needed |= names & set(modules) or {node.module or ""}
            if names - set(modules):
                needed.add(node.module or "")
    return needed & set(modules)


def test_no_import_cycles() -> None:
    modules = {module_name(p): p for p in SOURCES}
    edges = {name: needed_modules(p, modules) - {name} for name, p in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name in done:
            return
        for target in edges[name]:
            # a package's __init__ may import its own members, and they it, only if neither needs the other first
            visit(target, (*trail, name))
        done.add(name)

    for name in edges:
        visit(name, ())


def test_imports_inside_functions_only_in_the_doors() -> None:
    doors = ("nimctl.cli", "nimctl.__main__", "entrypoint.__main__", "entrypoint.server", "entrypoint.losses")
    for path in SOURCES:
        if any(inside(module_name(path), door) for door in doors):
            continue
        for function in ast.walk(tree_of(path)):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inner = [n for n in ast.walk(function) if isinstance(n, (ast.Import, ast.ImportFrom))]
                assert not inner, f"{path}:{inner[0].lineno} imports inside a function"


def used_error_ids() -> dict[str, str]:
    """Every id given as a literal to NimctlError(...), and where."""
    used: dict[str, str] = {}
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "NimctlError" and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    used[str(first.value)] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return used


def test_every_raised_id_is_in_the_catalogue() -> None:
    unknown = {i: where for i, where in used_error_ids().items() if i not in CATALOGUE}
    assert not unknown


def test_every_catalogue_id_is_used_and_documented() -> None:
    text = "\n".join(p.read_text(encoding="utf-8") for p in SOURCES if module_name(p) != "nimctl.core.errors")
    unused = [i for i in CATALOGUE if not re.search(rf'["\']{i}["\']', text)]
    assert not unused, f"in the catalogue, but nobody raises them: {unused}"
    documented = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    missing = [i for i in CATALOGUE if f"## {i}\n" not in documented]
    assert not missing, f"run scripts/docs: {missing}"


def test_every_raised_id_has_a_test() -> None:
    tests = "\n".join(p.read_text(encoding="utf-8") for p in ROOT.glob("tests/**/*.py") if p != Path(__file__))
    untested = [i for i in used_error_ids() if not re.search(rf"\b{i}\b", tests)]
    assert not untested, f"no test names {untested}"


def test_doors_alone_speak_and_read_the_environment() -> None:
    speakers = ("nimctl.cli", "nimctl.render", "nimctl.__main__", "entrypoint.__main__")
    for path in SOURCES:
        if any(inside(module_name(path), s) for s in speakers):
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "sys.exit", "exit"), f"{path}:{node.lineno} calls {called}"


def test_no_unfinished_marks() -> None:
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XXX|HACK)\b")
    for path in [*SOURCES, *ROOT.glob("scripts/*"), *ROOT.glob("tests/**/*.py")]:
        if path.is_file() and path != Path(__file__):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                assert not mark.search(line), f"{path}:{number}: {line.strip()}"


def test_every_changed_behaviour_has_a_fragment() -> None:
    fragments = [p for p in (ROOT / "changes").iterdir() if p.name != "README.md"]
    assert fragments
    for path in fragments:
        assert re.fullmatch(r"\d+[a-z0-9\-]*\.(added|changed|fixed|security|removed)\.md", path.name), path.name
        assert path.read_text(encoding="utf-8").strip()
