"""How the text of a variable becomes a value. A ValueError says what was expected instead."""

import re
import shlex
from pathlib import Path

from entrypoint.settings.mediahosts import NOTHING, media_hosts
from nimctl.core.variables import Reader, count


def _words(value: str) -> tuple[str, ...]:
    return tuple(word for word in value.replace(",", " ").split() if word)


def _media_hosts(value: str) -> tuple[str, ...]:
    hosts = media_hosts(_words(value))
    return (NOTHING,) if hosts is None else tuple(map(str, hosts))


def _arguments(value: str) -> tuple[str, ...]:
    return tuple(shlex.split(value))


def seconds(*, zero: bool = False) -> Reader:
    """A time in seconds, below 10^6; with `zero`, none at all is one too."""
    words = "a number of seconds, 0 or more" if zero else "a number of seconds above 0"

    def read(value: str) -> float:
        found = float(value)
        if not (0 < found < 1e6 or (zero and found == 0)):
            raise ValueError(f"{words} is expected")
        return found

    return Reader(words, read)


# What is written into nginx's configuration may hold nothing that ends a word or a line there.
_BREAKS_NGINX = set("\"'\\$;{}\n\r")


def _path(value: str) -> Path:
    if not value.startswith("/") or set(value) & _BREAKS_NGINX:
        raise ValueError("an absolute path without quotes, $, ;, braces and line breaks is expected")
    return Path(value)


def _content_digest(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("64 hexadecimal digits are expected")
    return value


def _host(value: str) -> str:
    if not value or set(value) - set("0123456789abcdefABCDEF.:"):
        raise ValueError("an IPv4 or IPv6 address is expected")
    return value


def _host_name(value: str) -> str:
    if value.startswith("-") or not all(c.isascii() and (c.isalnum() or c in ".:-_[]") for c in value):
        raise ValueError("a host name or an address is expected")
    return value


def _header(value: str) -> str:
    if not value.isascii() or not value.isprintable() or set(value) & _BREAKS_NGINX:
        raise ValueError("names separated by commas are expected, without quotes, $, ; and braces")
    return ", ".join(part.strip() for part in value.split(",") if part.strip())


WORDS = Reader("words, separated by commas or blanks", _words)
MEDIA_HOSTS = Reader("hosts, separated by commas or blanks", _media_hosts)
ARGUMENTS = Reader("arguments, quoted as in a shell", _arguments)
CONTENT_DIGEST = Reader("64 hexadecimal digits", _content_digest)
PATH = Reader("an absolute path", _path)
HOST = Reader("an IPv4 or IPv6 address", _host)
HOST_NAME = Reader("a host name or an address", _host_name)
HEADER = Reader("names, separated by commas", _header)
PORT = count(1, 65535)
