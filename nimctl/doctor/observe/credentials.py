"""Which keys and logins are there, of which kind, and how well they are kept. Their values are never kept."""

import json
import re
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nimctl.core import keys
from nimctl.core.errors import NimctlError
from nimctl.core.facts import CredentialFacts, KeyKind
from nimctl.doctor.observe.files import regular, valid

# The shape of keys that NGC made before personal ones: 84 characters of base64 without a prefix, which is what
# `<26 characters>:<UUID>` becomes. No page of NVIDIA states it, so that nothing more than a hint is built on it.
_LEGACY = re.compile(r"[A-Za-z0-9+/]{84}")
# What an entry of `auths` holds when the login lies in the file itself; docker leaves it empty beside a helper.
_HELD_IN_FILE = ("auth", "password", "identitytoken", "registrytoken")
_LARGEST_CONFIG = 2**22  # bytes; logins of a thousand registries have some 300 KB


def look_at_credentials(environment: Mapping[str, str]) -> CredentialFacts:
    """Keys that a pull or run would find (`keys.find_key`), and the registries that Docker has logins for."""
    folder = environment.get("DOCKER_CONFIG") or str(Path(environment.get("HOME", "~")).expanduser() / ".docker")
    path = Path(folder) / "config.json"
    config, problem = _docker_config(path)
    auths, helpers = _mapping(config.get("auths")), _mapping(config.get("credHelpers"))
    store = config.get("credsStore")
    store = valid(store) if isinstance(store, str) and store else None
    return CredentialFacts(
        keys={name: keys.is_present(name, environment) for name in keys.NAMES},
        kinds=_kinds(environment),
        key_files=_key_files(environment),
        logins=tuple(sorted({_registry(name) for name in (*auths, *helpers)})),
        plaintext=tuple(sorted({_registry(name) for name, entry in auths.items() if _holds_login(entry)})),
        config_mode=_mode(path),
        config_problem=problem,
        store=store,
        helper_problem=_helper_problem([store, *helpers.values()], environment),
    )


def kind_of(key: str) -> KeyKind:
    """What kind of key this looks like. Prefixes: https://docs.nvidia.com/ngc/latest/ngc-user-guide.html#ngc-api-keys
    and https://huggingface.co/docs/hub/security-tokens.
    """
    if key.startswith("nvapi-"):
        return "personal"
    if key.startswith("hf_"):
        return "hugging-face"
    return "legacy" if _LEGACY.fullmatch(key) else "other"


def _kinds(environment: Mapping[str, str]) -> dict[str, KeyKind]:
    kinds: dict[str, KeyKind] = {}
    for name in keys.NAMES:
        with suppress(NimctlError):  # a key file that cannot be read; the key counts as missing
            if key := keys.find_key(name, environment):
                kinds[name] = kind_of(key.reveal())
    return kinds


def _key_files(environment: Mapping[str, str]) -> dict[str, str]:
    """The mode of each file that is named by a variable such as NGC_API_KEY_FILE, by that variable."""
    named = {f"{name}_FILE": environment.get(f"{name}_FILE", "").strip() for name in keys.NAMES}
    modes = {variable: _mode(Path(path)) for variable, path in named.items() if path}
    return {variable: mode for variable, mode in modes.items() if mode is not None}


def _mode(path: Path) -> str | None:
    try:
        return f"{stat.S_IMODE(path.stat().st_mode):04o}"
    except (OSError, ValueError):
        return None


def _docker_config(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """The document, and why it cannot be used: in words of ours, as the parser's may quote it."""
    try:
        text = regular(path, _LARGEST_CONFIG)
        document = json.loads(text) if text.strip() else {}
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        return {}, error.strerror or "it cannot be read"
    except (ValueError, RecursionError):
        return {}, "it is not JSON"
    return (document, None) if isinstance(document, Mapping) else ({}, "it is not a JSON object")


def _helper_problem(names: list[Any], environment: Mapping[str, str]) -> str | None:
    """The first credential helper whose program is not there. It is not started: it may ask for a password."""
    for name in names:
        program = f"docker-credential-{name}"
        if isinstance(name, str) and name and shutil.which(program, path=environment.get("PATH")) is None:
            return valid(f"{program} is not on the PATH")
    return None


def _holds_login(entry: Any) -> bool:
    return any(_mapping(entry).get(key) for key in _HELD_IN_FILE)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _registry(name: str) -> str:
    """The host in a key of `auths`, which old versions wrote as a URL such as https://index.docker.io/v1/."""
    return valid(name.rpartition("://")[2].partition("/")[0].rpartition("@")[2])
