"""Where this node is on the network that it shares with the others of its group."""

import fcntl
import socket
import struct
from contextlib import suppress
from pathlib import Path

_SIOCGIFADDR = 0x8915  # linux/sockios.h
_ANYWHERE = ("8.8.8.8", "2001:4860:4860::8888")  # nothing is sent there: only the route is looked up


def addresses(name: str) -> tuple[str, ...]:
    """The addresses that a host name stands for, IPv4 first; none when it cannot be looked up."""
    with suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in ordered))
    return ()


def own_address(towards: str | None) -> str | None:
    """The address of this machine from which `towards` is reached; without one, that of the default route.

    None where there is no route. Of an address of this machine, that address itself.
    """
    for target in _ANYWHERE if towards is None else (towards,):
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    return None


def is_own(address: str) -> bool:
    """Whether `address` is one of this machine's (in a container: of this container's)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return True
    return False


def interface_of(address: str) -> str | None:
    """The network interface that has `address`, such as `eth0`; None where none has."""
    if ":" in address:
        return _interface_of_v6(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                answer = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None


def _interface_of_v6(address: str) -> str | None:
    with suppress(OSError):
        wanted = socket.inet_pton(socket.AF_INET6, address.partition("%")[0]).hex()
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            words = line.split()
            if words[0] == wanted:
                return words[-1]
    return None
