"""Which hosts pictures may be fetched from: by name before a name is resolved, and by address after it is.

By default every public address, and nothing else. A host that the operator named in NIM_ALLOWED_MEDIA_DOMAINS may be
a private one too; then no other host is asked. What is not public is told here and not left to Python, whose list is
as old as the interpreter: IANA's special addresses (https://www.iana.org/assignments/iana-ipv4-special-registry ,
https://www.iana.org/assignments/iana-ipv6-special-registry), the addresses that clouds keep for themselves, and the
IPv6 forms in which an IPv4 address hides.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import quote, urlsplit

from entrypoint.api.refusals import RefusedError, shown
from entrypoint.settings.mediahosts import MediaHost, in_ascii, media_hosts

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

URL_LIMIT = 8192
_STRANGE = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
# Nobody serves pictures to strangers on the ports of mail and shells.
_PORTS = (80, 443)
_FIRST_FREE_PORT = 1024
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # https://www.rfc-editor.org/rfc/rfc6052
_PUBLIC6 = ipaddress.IPv6Network("2000::/3")  # https://www.iana.org/assignments/ipv6-unicast-address-assignments
# Whole blocks, with the few anycast addresses in them: nobody serves pictures there.
_SPECIAL4 = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
_SPECIAL6 = tuple(
    ipaddress.IPv6Network(block)
    for block in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
# Where a machine in a cloud asks for its own keys, but for the link-local address that most have.
_CLOUDS: frozenset[Address] = frozenset(
    map(
        ipaddress.ip_address,
        (
            "168.63.129.16",  # https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
            "192.0.0.192",  # Oracle's before 169.254.169.254
            "100.100.100.200",  # https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata
            "fd00:ec2::254",  # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
            "fd20:ce::254",  # https://cloud.google.com/compute/docs/metadata/querying-metadata
        ),
    )
)
# What may stand in a request's first line as it is: https://www.rfc-editor.org/rfc/rfc3986#section-2
_AS_IT_IS = "".join(map(chr, range(0x21, 0x7F)))


class Target(NamedTuple):
    """Where a URL points: a host in lower case without trailing dot, a port, and what to ask for."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str


@dataclass(frozen=True)
class Allowed:
    """The hosts that pictures may come from: `hosts` where there are any, else every public one; or `nothing`."""

    hosts: tuple[MediaHost, ...] = ()
    nothing: bool = False

    @classmethod
    def read(cls, words: Iterable[str]) -> "Allowed":
        """As in NIM_ALLOWED_MEDIA_DOMAINS; the word `none` alone allows no URL at all. Raises ValueError."""
        hosts = media_hosts(words)
        return cls((), nothing=True) if hosts is None else cls(hosts)

    def names(self, target: Target) -> bool:
        """Whether the operator named this host."""
        return any(
            port in (None, target.port)
            and (name == target.host or (name.startswith("*.") and target.host.endswith(name[1:])))
            for name, port in self.hosts
        )

    def permits(self, target: Target, address: Address) -> bool:
        """Whether this address of the host may be connected to."""
        if is_public(address):
            return True
        if not self.names(target):
            return False
        # A name may be of the operator's own network, but nobody means the metadata service unless it is written out.
        return str(address) == target.host or not (
            address.is_link_local
            or address.is_unspecified
            or address.is_multicast
            or address in _CLOUDS
            or _hidden(address) is not None
        )


def is_public(address: Address) -> bool:
    """Whether the address is one of the Internet's, also where it hides another address."""
    if isinstance(address, ipaddress.IPv6Address):
        if (inner := _hidden(address)) is not None:
            return address in _NAT64 and is_public(inner)
        return address in _PUBLIC6 and not any(address in block for block in _SPECIAL6)
    return address not in _CLOUDS and not any(address in block for block in _SPECIAL4)


def _hidden(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address in one that is mapped, translated or tunnelled."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    number = int(address)
    if address in _NAT64 or (number >> 32 in (0, 0xFFFF, 0xFFFF0000) and number > 1):
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    return address.teredo[1] if address.teredo is not None else None


def target_of(url: str, allowed: Allowed) -> Target:
    """Where the URL points, judged by all that can be known without asking for the name. Raises RefusedError."""
    if allowed.nothing:
        raise RefusedError("Media URLs are turned off on this server: send the picture itself as a data: URL")
    if len(url) > URL_LIMIT or _STRANGE.search(url):
        raise RefusedError(
            f"The media URL {shown(url)} holds blanks, backslashes or control characters, or is too long"
        )
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise RefusedError(f"The media URL {shown(url)} cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise RefusedError("Media must be given as an http:, https: or data: URL")
    if "@" in parts.netloc:
        raise RefusedError("A media URL must not hold a user name")
    target = Target(
        "https" if parts.scheme == "https" else "http",
        _host(host, url),
        port if port is not None else 443 if parts.scheme == "https" else 80,
        quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_AS_IT_IS),
    )
    named = allowed.names(target)
    if allowed.hosts and not named:
        raise RefusedError(
            f"Media may not be fetched from {target.host}: this server's NIM_ALLOWED_MEDIA_DOMAINS does not name it"
        )
    if not named and target.port not in _PORTS and target.port < _FIRST_FREE_PORT:
        raise RefusedError(f"Media may not be fetched from port {target.port}")
    if (address := literal(target.host)) is not None and not allowed.permits(target, address):
        raise RefusedError(private(target))
    return target


def _host(host: str, url: str) -> str:
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise RefusedError(f"The media URL {shown(url)} names no host") from None
    plain = in_ascii(host)
    if not _HOST.fullmatch(plain):
        raise RefusedError(f"The media URL {shown(url)} names no host")
    return plain


def literal(host: str) -> Address | None:
    """The address that the host's text already is, in any of the forms that the resolver takes (octal, hex, short)."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def private(target: Target) -> str:
    """Why an address that is not public was refused."""
    return (
        f"Media may not be fetched from {target.host}: it is not a public address. "
        "NIM_ALLOWED_MEDIA_DOMAINS names the hosts of an own network when the server is started."
    )


def addresses_of(target: Target, allowed: Allowed) -> tuple[Address, ...]:
    """All addresses of the host, every one of them permitted. Asks the resolver. Raises RefusedError."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise RefusedError(f"Media cannot be fetched: there is no address for the host {target.host}") from None
    addresses = tuple(dict.fromkeys(ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found))
    if not addresses or not all(allowed.permits(target, address) for address in addresses):
        raise RefusedError(private(target))
    return addresses
