"""The port that a run would publish on, the proxies that its downloads go through, and the authorities they trust."""

import errno
import itertools
import socket
from collections.abc import Mapping
from pathlib import Path

from nimctl.core.facts import CaFacts, PortFacts
from nimctl.core.secret import redact
from nimctl.doctor import proxies

# What names authorities to requests, curl, OpenSSL and the tools of AWS.
_AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE")
_BEGIN = (b"BEGIN CERTIFICATE", b"BEGIN TRUSTED CERTIFICATE")
_LONGEST_BUNDLE = 8 * 2**20  # bytes; the bundles of distributions have 0.2 MB
_MOST_FILES = 400  # of a folder that are opened to find the first certificate


def look_at_port(host: str, port: int) -> PortFacts:
    """Whether `host:port` can be bound now.

    Address reuse is on, as it is for docker and nginx: else a port whose server has just left would seem taken.
    """
    if not 0 <= port <= 65535:
        return PortFacts(host, port, free=None, detail="ports are numbers from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except (socket.gaierror, UnicodeError):
        return PortFacts(host, port, free=None, detail=f"{host} is no address and no known name")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return PortFacts(host, port, free=False, detail="another program listens there")
        # EACCES for ports below 1024 says nothing about docker, whose daemon is root.
        return PortFacts(host, port, free=None, detail=error.strerror)
    return PortFacts(host, port, free=True)


def look_at_authorities(environment: Mapping[str, str]) -> tuple[CaFacts, ...]:
    """The certificate bundles, files or folders, that the environment names, and what is wrong with them."""
    return tuple(
        CaFacts(variable, path, _problem_of(Path(path)))
        for variable in _AUTHORITIES
        for path in _paths(variable, environment.get(variable, ""))
    )


def _paths(variable: str, value: str) -> list[str]:
    parts = value.split(":") if variable == "SSL_CERT_DIR" else [value]
    return [part for part in parts if part.strip()]


def _problem_of(path: Path) -> str | None:
    try:
        if path.is_dir():
            files = itertools.islice((entry for entry in path.iterdir() if entry.is_file()), _MOST_FILES)
            return None if any(_holds_certificate(file) for file in files) else "no certificate is in this folder"
        return None if _holds_certificate(path) else "no certificate is in it"
    except FileNotFoundError:
        return "there is no such file or folder"
    except PermissionError:
        return "this user may not read it"
    except OSError as error:
        return error.strerror or "it cannot be read"


def _holds_certificate(path: Path) -> bool:
    with path.open("rb") as file:
        text = file.read(_LONGEST_BUNDLE)
    return any(begin in text for begin in _BEGIN)


def look_at_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables in upper case, without user and password."""
    seen = {name: proxies.value_of(name, environment) for name in proxies.VARIABLES}
    return {name: _without_userinfo(value) for name, value in seen.items() if value}


def _without_userinfo(value: str) -> str:
    scheme, separator, rest = value.rpartition("://") if "://" in value else ("", "", value)
    # Up to the last @, because people forget to escape one in a password.
    return redact(f"{scheme}{separator}{rest.rpartition('@')[2]}")
