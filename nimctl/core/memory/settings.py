"""What a model's `config.json` says, read with its types checked. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class UnknownArchitecture(ValueError):  # noqa: N818  (it names what is met, and is caught as a ValueError)
    """The weights cannot be told from the configuration; the message says what is not known."""


_REQUIRED = object()


@dataclass(frozen=True)
class Settings:
    """A JSON object of the configuration; `where` names it in messages."""

    found: Mapping[str, Any]
    where: str = "config.json"

    def whole(self, *names: str, default: Any = _REQUIRED) -> int:
        """The first of `names` that is there, a whole number from 0. Raises UnknownArchitecture."""
        for name in names:
            value = self.found.get(name)
            if type(value) is int and 0 <= value < 2**40:
                return value
            if value is not None:
                raise UnknownArchitecture(f"{self.where}: {name} is {value!r}, not a whole number from 0")
        if default is _REQUIRED:
            raise UnknownArchitecture(f"{self.where} does not say {' or '.join(names)}")
        return int(default)

    def some(self, *names: str) -> int:
        """As `whole`, and at least one."""
        if not (value := self.whole(*names)):
            raise UnknownArchitecture(f"{self.where}: {names[0]} is 0")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """A setting that is on or off; null counts as not given. Raises UnknownArchitecture."""
        value = self.found.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise UnknownArchitecture(f"{self.where}: {name} is {value!r}, neither true nor false")
        return value

    def text(self, name: str) -> str | None:
        """A string, or None where there is none."""
        value = self.found.get(name)
        return value if isinstance(value, str) else None

    def texts(self, name: str) -> tuple[str, ...]:
        """The strings of a list; nothing where there is no list."""
        value = self.found.get(name)
        return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()

    def inner(self, name: str) -> "Settings | None":
        """The object of that name, or None where there is none."""
        value = self.found.get(name)
        return Settings(value, f"{self.where} ({name})") if isinstance(value, Mapping) else None


def language(config: Mapping[str, Any]) -> Settings:
    """What describes the language model: `text_config` where there is one, else the whole document."""
    whole = Settings(config)
    return whole.inner("text_config") or whole


def architecture_of(config: Mapping[str, Any]) -> str:
    """The first of `architectures`. Raises UnknownArchitecture."""
    names = Settings(config).texts("architectures")
    if not names:
        raise UnknownArchitecture("config.json names no architecture")
    return names[0]


def head_size(settings: Settings) -> int:
    """Values of a head: as given, or what remains when the hidden size is divided among the heads."""
    given = settings.whole("head_dim", default=0)
    return given or settings.some("hidden_size") // settings.some("num_attention_heads")


# Names of the number of routed experts, by family of models.
EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts")
