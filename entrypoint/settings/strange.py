"""Variables that were set and do nothing: one sentence each, with the name that was probably meant."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from entrypoint.settings.replaced import REPLACED
from entrypoint.settings.variables import ACCESS, NAMES

# Kubernetes sets these for each service of its namespace, so also for one that is called nim-... or vllm-...:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_SERVICES = re.compile(r"_(SERVICE_(HOST|PORT)|PORT|PORT_\d+_(TCP|UDP|SCTP))(_\w+)?$")
_SERVICE_HOST = "_SERVICE_HOST"
_ENGINES = "VLLM_"
_FAMILIES = ("NIM_", _ENGINES)
_NEAR = 0.75


def sentences(environ: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each variable of `environ` that somebody set to no effect."""
    set_names = sorted(name for name, value in environ.items() if value)
    return tuple(said for name in set_names if (said := _about(name, environ)))


def _about(name: str, environ: Mapping[str, str]) -> str | None:
    if found := REPLACED.get(name):
        return None if found.expected else f"{name} does nothing here: {found.instead}"
    if not name.startswith(_FAMILIES) or name in NAMES or name in ACCESS or _is_of_a_service(name, environ):
        return None
    if name.startswith(_ENGINES):
        known = engine_names()
        if not known or name in known:
            return None
        return f"{name} is unknown to the installed engine{_meant(name, known)}"
    return f"{name} is unknown and does nothing{_meant(name, (*NAMES, *REPLACED))}"


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1, _NEAR)
    return f"; {near[0]} may be meant" if near else ""


def _is_of_a_service(name: str, environ: Mapping[str, str]) -> bool:
    """Whether Kubernetes set it: its service has a variable with the host beside it."""
    found = _OF_SERVICES.search(name)
    return found is not None and f"{name[: found.start()]}{_SERVICE_HOST}" in environ


@cache
def engine_names() -> Collection[str]:
    """The variables that the installed engine reads, from its source: nothing of it is imported, which takes seconds.

    Empty where there is none, or where its source cannot be read.
    """
    try:
        spec = find_spec("vllm")
        root = Path(next(iter(spec.submodule_search_locations or ()))) if spec else None
        text = (root / "envs.py").read_text(encoding="utf-8") if root else ""
    except (OSError, ValueError, ImportError, StopIteration):
        return frozenset()
    return frozenset(re.findall(r"\bVLLM_[A-Z0-9_]+\b", text))
