"""Where settings come from: defaults, `~/.config/nimctl/config.yaml`, `./nimctl.yaml`, `NIMCTL_*`, then flags.

Every value keeps its origin, so that `nimctl run --dry-run` can say why it is what it is.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.core.recipes import DEFAULT_MODEL
from nimctl.core.yamlfile import read_yaml
from nimctl.trust.policy import POLICIES, read_policy

# key: default. Dots are nesting in YAML and underscores in variables: images.registry is NIMCTL_IMAGES_REGISTRY.
DEFAULTS: Mapping[str, str | int | None] = {
    "model": DEFAULT_MODEL,
    "gpus": None,
    "gpu_mode": None,
    "host": "127.0.0.1",
    "port": 8000,
    "cache": "~/.cache/nim",
    "runtime": "docker",
    "images.registry": None,
    "images.cuda": None,
    "images.cpu": None,
    "verify": "warn",
}
# Whom to trust (nimctl.trust.policy reads it): a list of rules, which no variable and no flag can hold.
_TRUST = "trust"
_PROJECT = Path("nimctl.yaml")  # it comes with a folder that others may have written


@dataclass(frozen=True)
class Setting:
    """A resolved value and where it came from, in words."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Config:
    """All settings of one invocation."""

    settings: Mapping[str, Setting]
    trust: tuple[tuple[Path, Any], ...] = ()  # what `trust` of each file holds, the user's own file first

    def text(self, key: str) -> str | None:
        """The value of `key` as text, None when unset."""
        value = self.settings[key].value
        return None if value is None else str(value)

    def number(self, key: str) -> int:
        """The value of a numeric key. Raises `config-invalid` with its origin when it is no number."""
        setting = self.settings[key]
        try:
            return int(setting.value)
        except (TypeError, ValueError):
            raise NimctlError(
                "config-invalid",
                f"{key} is {setting.value!r}, which is not a whole number",
                cause=f"it comes from {setting.origin}",
                fix=f"Set {key} to a number.",
            ) from None

    def origin(self, key: str) -> str:
        """Where the value of `key` came from."""
        return self.settings[key].origin

    def lets_trust(self, path: Path) -> bool:
        """Whether the rules of this file count: those of a project do not where the user requires signatures.

        Else whoever wrote the project would say what the user's `require` is satisfied with.
        """
        own = self.origin("verify") != str(_PROJECT)
        return path.name != _PROJECT.name or not (own and self.text("verify") == "require")

    @property
    def cache(self) -> Path:
        """The cache folder, absolute."""
        return Path(os.path.expanduser(str(self.text("cache")))).absolute()  # noqa: PTH111 (~user too)


def load(flags: Mapping[str, Any]) -> Config:
    """The settings for these flags (None: not given), this environment and these files."""
    settings = {key: Setting(value, "default") for key, value in DEFAULTS.items()}
    trust: list[tuple[Path, Any]] = []
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    for path in (Path(home) / "nimctl" / "config.yaml", _PROJECT):
        if path.is_file():
            data = read_yaml(path) or {}
            if isinstance(data, Mapping):
                data = dict(data)
                trust.append((path.absolute(), data.pop(_TRUST, None)))
            found = {key: Setting(value, str(path)) for key, value in _flatten(data, path).items()}
            settings |= _no_weaker(settings["verify"], found) if path == _PROJECT else found
    for key in DEFAULTS:
        variable = f"NIMCTL_{key.upper().replace('.', '_')}"
        if value := os.environ.get(variable):
            settings[key] = Setting(value, variable)
    settings |= {key: Setting(value, f"--{key}") for key, value in flags.items() if value is not None}
    settings["verify"] = _in_words(settings["verify"])
    return Config(settings, tuple(trust))


def _no_weaker(known: Setting, found: dict[str, Setting]) -> dict[str, Setting]:
    """What a project's file says, without a `verify` that asks for no more than `known`, the user's or the default.

    A variable or a flag, which the user sets knowingly, can still ask for less.
    """
    if "verify" not in found:
        return found
    before, after = (POLICIES.index(_in_words(setting).value) for setting in (known, found["verify"]))
    return {key: setting for key, setting in found.items() if key != "verify" or after > before}


def _in_words(verify: Setting) -> Setting:
    """The policy as one of its three words. Raises `config-invalid`."""
    return replace(verify, value=read_policy(verify.value, verify.origin))


def _flatten(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise _invalid(path, "the file does not hold a mapping")
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[str(key)] = value
    for key, value in flat.items():
        if key not in DEFAULTS:
            raise _invalid(path, f"unknown key {key!r}; known: {', '.join((*DEFAULTS, _TRUST))}")
        if key == "verify":
            continue  # its words, and a bare `off` that YAML reads as false, are read_policy's
        if not isinstance(value, (str, int, type(None))) or isinstance(value, bool):
            raise _invalid(path, f"{key} must be text or a number")
    return flat


def _invalid(path: Path, cause: str) -> NimctlError:
    return NimctlError("config-invalid", f"{path} is not a valid configuration", cause=cause, fix="Correct that key.")
