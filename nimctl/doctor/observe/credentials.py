"""Which keys and logins are there. Their values are never kept."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nimctl.core import keys
from nimctl.core.facts import CredentialFacts


def look_at_credentials(environment: Mapping[str, str]) -> CredentialFacts:
    """Keys that a pull or run would find (`keys.find_key`), and registries that Docker has logins for."""
    folder = environment.get("DOCKER_CONFIG") or str(Path(environment.get("HOME", "~")).expanduser() / ".docker")
    config = _docker_config(Path(folder) / "config.json")
    helpers = _mapping(config.get("credHelpers"))
    store = config.get("credsStore")
    return CredentialFacts(
        keys={name: keys.is_present(name, environment) for name in keys.NAMES},
        logins=tuple(sorted({_registry(name) for name in (*_mapping(config.get("auths")), *helpers)})),
        store=store if isinstance(store, str) and store else None,
    )


def _docker_config(path: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _registry(name: str) -> str:
    """The host in a key of `auths`, which old versions wrote as a URL such as https://index.docker.io/v1/."""
    return name.rpartition("://")[2].partition("/")[0].rpartition("@")[2]
