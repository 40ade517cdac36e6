"""Where settings come from: defaults, `~/.config/nimctl/config.yaml`, `./nimctl.yaml`, `NIMCTL_*`, then flags.

Every value keeps its origin, so that `nimctl run --dry-run` can say why it is what it is.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.core.recipes import DEFAULT_MODEL
from nimctl.core.yamlfile import read_yaml

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

    @property
    def cache(self) -> Path:
        """The cache folder, absolute."""
        return Path(os.path.expanduser(str(self.text("cache")))).absolute()  # noqa: PTH111 (~user too)


def load(flags: Mapping[str, Any]) -> Config:
    """The settings for these flags (None: not given), this environment and these files."""
    settings = {key: Setting(value, "default") for key, value in DEFAULTS.items()}
    trust: list[tuple[Path, Any]] = []
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    for path in (Path(home) / "nimctl" / "config.yaml", Path("nimctl.yaml")):
        if path.is_file():
            data = read_yaml(path) or {}
            if isinstance(data, Mapping):
                data = dict(data)
                trust.append((path.absolute(), data.pop(_TRUST, None)))
            found = {key: Setting(value, str(path)) for key, value in _flatten(data, path).items()}
            settings |= _no_weaker(settings, found)
    for key in DEFAULTS:
        variable = f"NIMCTL_{key.upper().replace('.', '_')}"
        if value := os.environ.get(variable):
            settings[key] = Setting(value, variable)
    settings |= {key: Setting(value, f"--{key}") for key, value in flags.items() if value is not None}
    return Config(settings, tuple(trust))


def _no_weaker(known: Mapping[str, Setting], found: dict[str, Setting]) -> dict[str, Setting]:
    """`found` without a `verify` that asks for less than the user's own file does: a project may only ask for more.

    A variable or a flag, which the user sets knowingly, can still ask for less.
    """
    strictness = ("off", "warn", "require")
    before, after = known["verify"], found.get("verify")
    if after is None or before.origin == "default" or not {before.value, after.value} <= set(strictness):
        return found
    if strictness.index(after.value) < strictness.index(before.value):
        return {key: setting for key, setting in found.items() if key != "verify"}
    return found


def _flatten(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise _invalid(path, "the file does not hold a mapping")
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[str(key)] = value
    if flat.get("verify") is False:  # how YAML reads a bare `off`
        flat["verify"] = "off"
    for key, value in flat.items():
        if key not in DEFAULTS:
            raise _invalid(path, f"unknown key {key!r}; known: {', '.join((*DEFAULTS, _TRUST))}")
        if not isinstance(value, (str, int, type(None))) or isinstance(value, bool):
            raise _invalid(path, f"{key} must be text or a number")
    return flat


def _invalid(path: Path, cause: str) -> NimctlError:
    return NimctlError("config-invalid", f"{path} is not a valid configuration", cause=cause, fix="Correct that key.")
