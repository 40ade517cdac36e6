"""Which proxy a request goes through, by the environment. Pure.

One reading for the looks and the checks: that of the library which fetches the weights
(https://requests.readthedocs.io/en/latest/user/advanced/#proxies), which is curl's but for details
(https://curl.se/docs/manpage.html#ENVIRONMENT): lower-case names win, also where they are empty.
"""

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from nimctl.core.secret import Secret

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the login that it is shown (`user:password` in base64), which is never kept."""

    scheme: str
    host: str
    port: int
    login: Secret | None = None

    @property
    def name(self) -> str:
        """How it is called: host and port."""
        return f"{self.host}:{self.port}"


def value_of(name: str, environment: Mapping[str, str]) -> str:
    """The value of a proxy variable, named in upper case; empty where it is not set."""
    lower = name.lower()
    return (environment[lower] if lower in environment else environment.get(name, "")).strip()


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """The value of the variable by whose proxy `url` is asked; None where it is asked directly."""
    parts = urlsplit(url)
    value = value_of(f"{parts.scheme.upper()}_PROXY", environment) or value_of("ALL_PROXY", environment)
    if not value or bypassed(parts.hostname or "", parts.port, value_of("NO_PROXY", environment)):
        return None
    return value


def bypassed(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether NO_PROXY lists the host: as `*`, a name or the end of one, an address or a network; a port may follow."""
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        if not entry:
            continue
        if entry == "*" or _in_network(host, entry):
            return True
        name, _, wanted = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        if wanted and wanted != str(port):
            continue
        bare = name.removeprefix("*").lstrip(".")
        if bare and (host.lower() == bare or host.lower().endswith(f".{bare}")):
            return True
    return False


def _in_network(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def parse(value: str) -> Proxy:
    """The proxy that a variable's value means; no scheme means http. Raises ValueError with a clause that says why not.

    The clause never quotes the value, which may hold a password.
    """
    text = value if "://" in value else f"http://{value}"
    scheme = text.partition("://")[0].lower()
    if scheme not in _PORTS:
        raise ValueError(f"it is a {scheme[:10]} proxy, and only http and https proxies are understood")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("its host or port cannot be read") from None
    if not host or any(char.isspace() for char in text):
        raise ValueError("it names no host")
    login = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        login = Secret(base64.b64encode(pair.encode()).decode())
    return Proxy(scheme, host, port or _PORTS[scheme], login)
