"""The hosts in NIM_ALLOWED_MEDIA_DOMAINS as they are compared: checked at the start, used inside the engine."""

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

_FORMS = "hosts are expected: a.example, a.example:8080, *.a.example, 10.0.0.7 or [fd00::7]:81, or none alone"
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"[0-9]{1,5}")
_LONGEST = 253
NOTHING = "none"


class MediaHost(NamedTuple):
    """A host, or all beneath a domain (`*.a.example`), in lower case and ASCII; at one port, or at any."""

    name: str
    port: int | None

    def __str__(self) -> str:
        if self.port is None:
            return self.name
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


def media_hosts(words: Iterable[str]) -> tuple[MediaHost, ...] | None:
    """The hosts of these words, none of them for every public one; None where the word is `none`: no URL at all.

    Raises ValueError for a word that is no host, and for `none` beside others.
    """
    texts = tuple(words)
    if [text.lower() for text in texts] == [NOTHING]:
        return None
    return tuple(media_host(text) for text in texts)


def media_host(text: str) -> MediaHost:
    """One word, in the form in which a URL's host is compared with it. Raises ValueError."""
    name, port = _parts(text)
    if port is not None and not (_PORT.fullmatch(port) and 0 < int(port) < 2**16):
        raise ValueError(f"{text!r} has no port from 1 to 65535: {_FORMS}")
    number = int(port) if port is not None else None
    if ":" in name:
        try:
            return MediaHost(str(ipaddress.IPv6Address(name)), number)
        except ValueError:
            raise ValueError(f"{text!r} is no host: {_FORMS}") from None
    star = "*." if name.startswith("*.") else ""
    plain = in_ascii(name.removeprefix(star))
    if plain == NOTHING or not _NAME.fullmatch(plain) or len(plain) > _LONGEST or _is_half_an_address(plain, star):
        raise ValueError(f"{text!r} is no host: {_FORMS}")
    return MediaHost(star + plain, number)


def in_ascii(name: str) -> str:
    """A name in lower case, without trailing dot, in ASCII (https://www.rfc-editor.org/rfc/rfc3490); "": none."""
    try:
        plain = name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
    return plain.lower().removesuffix(".")


def _parts(text: str) -> tuple[str, str | None]:
    """The name and what stands for its port; an address of IPv6 has one only after brackets."""
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in name or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is no host: {_FORMS}")
        return name, rest[1:] if rest else None
    if text.count(":") != 1:
        return text, None
    name, _, port = text.partition(":")
    return name, port


def _is_half_an_address(plain: str, star: str) -> bool:
    """Whether it ends in a number, as only addresses do, and is none (https://url.spec.whatwg.org/#ends-in-a-number)."""
    if not plain.rpartition(".")[2].isdecimal():
        return False
    try:
        ipaddress.IPv4Address(plain)
    except ValueError:
        return True
    return bool(star)
