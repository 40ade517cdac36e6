"""Whom to trust for what: the rules that the user wrote under `trust:`, read and matched. Pure.

    trust:
      - images: nvcr.io/nim/**                 # * is one part of a name, ** any number of them
        keys: ngc.pub                          # files; relative to the file that holds the rule
      - images: mirror.corp/nvidia/nim/**
        signed_as: nvcr.io/nim/**              # what a mirror's images were signed as
        keys: ngc.pub
      - images: registry.corp/models/**
        keyless:
          - identity: https://github.com/corp/images/.github/workflows/release.yml@refs/heads/main
            issuer: https://token.actions.githubusercontent.com
            trusted_root: corp-root.json       # left out: Sigstore's own, as the library carries it
      - weights: ngc://nim/moonshotai/**
        certs: nvidia-model-signing.pem
        signature: model.sig                   # left out: model.sig in the snapshot

The first rule whose pattern fits is the one that counts.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nimctl.core.errors import NimctlError

Policy = Literal["off", "warn", "require"]
POLICIES: tuple[Policy, ...] = ("off", "warn", "require")  # each asks for more than the one before
_OFF = ("off", "false", "no")

_KEYS = ("images", "weights", "keys", "certs", "keyless", "signed_as", "signature")
_KEYLESS_KEYS = ("identity", "issuer", "trusted_root")
_WILD = re.compile(r"\*\*|\*")
EXAMPLE = "trust: [{images: nvcr.io/nim/**, keys: ngc.pub}]"


@dataclass(frozen=True)
class Identity:
    """Who may sign without a key: `identity` as the certificate names it (`*` for any part), `issuer` who vouches."""

    identity: str
    issuer: str
    trusted_root: Path | None


@dataclass(frozen=True)
class Rule:
    """Whom to trust for images or weights of these names. `where` is file and line."""

    where: str
    images: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    keys: tuple[Path, ...] = ()
    certs: tuple[Path, ...] = ()
    keyless: tuple[Identity, ...] = ()
    signed_as: str | None = None
    signature: Path | None = None

    def expected(self, name: str) -> str:
        """The repository that the signature of the image `name` names: its own, or what `signed_as` makes of it."""
        if self.signed_as is None:
            return name
        found = next(m for pattern in self.images if (m := _compiled(pattern).fullmatch(name)))
        parts = iter(found.groups())
        return _WILD.sub(lambda _: next(parts), self.signed_as)


@dataclass(frozen=True)
class Rules:
    """All rules, in the order in which they count. `unheard` are those of a project that do not count here."""

    rules: tuple[Rule, ...] = ()
    unheard: tuple[Rule, ...] = ()

    def for_image(self, name: str) -> Rule | None:
        """The rule for an image, by its `plain_name`."""
        return next((rule for rule in self.rules if _matches(rule.images, name)), None)

    def without_voice(self, kind: Literal["images", "weights"], name: str) -> Rule | None:
        """The rule that would be about it, if its project could say whom to trust here."""
        return next((rule for rule in self.unheard if _matches(getattr(rule, kind), name)), None)

    def knows_kind_of(self, uri: str) -> bool:
        """Whether a rule is about weights of the same scheme: of hf, of ngc, or of folders."""
        kinds = {pattern.rpartition("://")[0] for rule in self.rules for pattern in rule.weights}
        return uri.rpartition("://")[0] in kinds

    def for_weights(self, uri: str) -> Rule | None:
        """The rule for weights by their address without revision (`hf://org/name`), or their folder."""
        return next((rule for rule in self.rules if _matches(rule.weights, uri)), None)


def read_policy(value: Any, origin: str) -> Policy:
    """`off`, `warn` or `require`, however it is spelled; YAML reads a bare `off` or `no` as false.

    Raises `config-invalid`.
    """
    word = str(value).strip().lower() if isinstance(value, (bool, str)) else value
    if word in _OFF:
        return "off"
    for policy in POLICIES:
        if word == policy:
            return policy
    raise NimctlError(
        "config-invalid",
        f"verify is {value!r}, which is none of {', '.join(POLICIES)}",
        cause=f"it comes from {origin}",
        fix="Set verify to off, warn or require.",
    )


def read_rules(data: Any, path: Path, line_of: Callable[[Sequence[str | int]], int]) -> Rules:
    """The rules in what `trust:` of the file `path` holds. `line_of` tells the line of a place in it.

    Raises `trust-invalid`, naming the line and the key. The files that are named are not looked at.
    """
    if data is None:
        return Rules()
    if not isinstance(data, list):
        raise _invalid(path, line_of(()), "trust", f"it is no list of rules, as in `{EXAMPLE}`")
    return Rules(tuple(_rule(item, path, line_of, number) for number, item in enumerate(data)))


def plain_name(name: str) -> str:
    """`registry/repository` with the registry as everybody writes it: in lower case, without the port of https."""
    registry, slash, repository = name.partition("/")
    return f"{registry.lower().removesuffix(':443')}{slash}{repository}"


def joined(parts: Iterable[tuple[Rules, bool]]) -> Rules:
    """Rules of several files, the first file's first, each with whether its rules count."""
    every = [(rule, counts) for part, counts in parts for rule in part.rules]
    return Rules(tuple(rule for rule, counts in every if counts), tuple(rule for rule, counts in every if not counts))


def _rule(item: Any, path: Path, line_of: Callable[[Sequence[str | int]], int], number: int) -> Rule:
    def bad(cause: str, *keys: str | int) -> NimctlError:
        return _invalid(path, line_of((number, *keys)), ".".join(map(str, ("trust", number + 1, *keys))), cause)

    if not isinstance(item, Mapping):
        raise bad("it is no rule: a rule names images or weights, and keys")
    _require_known(item, _KEYS, bad)
    texts = {name: _texts(item, name, bad) for name in ("images", "weights", "keys", "certs")}
    single = {name: _text(item, name, bad) for name in ("signed_as", "signature")}
    if bool(texts["images"]) == bool(texts["weights"]):
        raise bad("a rule is about images or about weights, and this one names neither or both")
    for name, owner in (("signed_as", "images"), ("certs", "weights"), ("signature", "weights")):
        if item.get(name) is not None and not texts[owner]:
            raise bad(f"only rules about {owner} have it", name)
    keyless = _keyless(item.get("keyless"), path.parent, bad)
    if not (texts["keys"] or texts["certs"] or keyless):
        raise bad("it trusts nobody: name `keys`, `certs` (for weights) or `keyless`")
    for name in ("images", "weights"):
        for pattern in texts[name]:
            if "://" in pattern and name == "images":
                raise bad(f"{pattern} is an address, and images are named without one: nvcr.io/nim/**", name)
            if re.search(r"\*\*\*|@|:[^/]*$", pattern.partition("://")[2] or pattern) and name == "images":
                raise bad(f"{pattern} names a tag or a digest; rules are about repositories", name)
    if signed_as := single["signed_as"]:
        wild = len(_WILD.findall(signed_as))
        if wild and any(_WILD.findall(pattern) != _WILD.findall(signed_as) for pattern in texts["images"]):
            raise bad("its * are not those of `images`, which they stand for", "signed_as")
    signature = single["signature"]
    return Rule(
        where=f"{path}:{line_of((number,))}",
        images=tuple(map(plain_name, texts["images"])),
        weights=texts["weights"],
        keys=tuple(_path(name, path.parent) for name in texts["keys"]),
        certs=tuple(_path(name, path.parent) for name in texts["certs"]),
        keyless=keyless,
        signed_as=signed_as and plain_name(signed_as),
        # a bare name lies in the snapshot, anything else beside the rule
        signature=Path(signature)
        if signature and "/" not in signature
        else signature and _path(signature, path.parent),  # type: ignore[arg-type]
    )


def _keyless(data: Any, folder: Path, bad: Callable[..., NimctlError]) -> tuple[Identity, ...]:
    if data is None:
        return ()
    items = data if isinstance(data, list) else [data]
    found = []
    for number, item in enumerate(items):
        place: tuple[str | int, ...] = ("keyless", number) if isinstance(data, list) else ("keyless",)
        if not isinstance(item, Mapping):
            raise bad("it is no pair of identity and issuer", *place)
        _require_known(item, _KEYLESS_KEYS, lambda cause, *keys, place=place: bad(cause, *place, *keys))
        named = {name: _text(item, name, bad, place) for name in _KEYLESS_KEYS}
        if not named["identity"] or not named["issuer"]:
            raise bad("it needs an `identity` and an `issuer`: a signature by anybody proves nothing", *place)
        if not named["identity"].strip("*"):
            raise bad("an identity of * alone trusts everybody", *place, "identity")
        root = named["trusted_root"]
        found.append(Identity(named["identity"], named["issuer"], _path(root, folder) if root else None))
    return tuple(found)


def _require_known(item: Mapping[Any, Any], known: Sequence[str], bad: Callable[..., NimctlError]) -> None:
    for name in item:
        if name not in known:
            raise bad(f"there is no such key; known: {', '.join(known)}", str(name))


def _texts(item: Mapping[Any, Any], name: str, bad: Callable[..., NimctlError]) -> tuple[str, ...]:
    """One text or a list of them."""
    value = item.get(name)
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(v, str) and v for v in values):
        raise bad("it is neither text nor a list of texts", name)
    return tuple(values)


def _text(
    item: Mapping[Any, Any], name: str, bad: Callable[..., NimctlError], place: Sequence[str | int] = ()
) -> str | None:
    value = item.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise bad("it is not text", *place, name)
    return value


def _path(name: str, folder: Path) -> Path:
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    return path if path.is_absolute() else (folder / path).absolute()


def _matches(patterns: Sequence[str], name: str) -> bool:
    return any(_compiled(pattern).fullmatch(name) for pattern in patterns)


def _compiled(pattern: str) -> re.Pattern[str]:
    plain = [re.escape(text) for text in _WILD.split(pattern)]
    wild = ["(.+)" if found == "**" else "([^/]+)" for found in _WILD.findall(pattern)]
    return re.compile("".join(a + b for a, b in zip(plain, [*wild, ""], strict=True)))


def _invalid(path: Path, line: int, key: str, cause: str) -> NimctlError:
    return NimctlError(
        "trust-invalid",
        f"{path}, line {line}: {key} cannot be used",
        cause=cause,
        fix="Correct that line; docs/images/trust.md shows rules.",
    )
