"""The port that a run would publish on, and the proxies that its downloads go through."""

import errno
import socket
from collections.abc import Mapping

from nimctl.core.facts import CaFacts, PortFacts
from nimctl.core.secret import redact

_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


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
    """The certificate bundles that the environment names."""
    return ()


def look_at_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables in upper case (the lower-case form wins, as it does for curl), without user and password."""
    seen = {}
    for name in _PROXY_VARIABLES:
        if value := environment.get(name.lower()) or environment.get(name):
            seen[name] = _without_userinfo(value)
    return seen


def _without_userinfo(value: str) -> str:
    scheme, separator, rest = value.rpartition("://") if "://" in value else ("", "", value)
    # Up to the last @, because people forget to escape one in a password.
    return redact(f"{scheme}{separator}{rest.rpartition('@')[2]}")
