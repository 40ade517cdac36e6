"""The lab's bridge and its way out, apart from any other engine on the machine.

Two engines that both manage iptables delete each other's DOCKER chains, so the lab's engine manages none: the bridge
and three rules of our own (masquerade, and accept in both directions) are all there is; published ports go through
docker-proxy. `down` removes exactly these. IP forwarding, which containers need, stays switched on.
"""

import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path

from .paths import Paths
from .steps import LabError, locked, run

SUBNETS = ("10.213.0.0/16", "172.29.0.0/16", "10.87.0.0/16", "10.214.0.0/16", "172.28.0.0/16", "10.88.0.0/16")
SUBNETS_LOCK = Path("/var/tmp/nimctl-lab-subnets.lock")
# linux/sockios.h
_SIOCBRADDBR, _SIOCBRDELBR = 0x89A0, 0x89A1
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8916, 0x891C, 0x8913, 0x8914
_IFF_UP = 1


def ensure_bridge(paths: Paths) -> ipaddress.IPv4Network:
    """Create the bridge with the first address of a free subnet, and the rules. Returns the lab's /16."""
    remembered = paths.engine_run / "subnet"
    if remembered.exists() and _exists(paths.bridge):
        subnet = ipaddress.IPv4Network(remembered.read_text())
    else:
        with locked(SUBNETS_LOCK):  # else two labs that start at once take the same one
            subnet = _free_subnet()
            _create_bridge(paths.bridge, subnet)
        remembered.write_text(str(subnet))
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for rule in _rules(subnet):
        if not _iptables(paths, "-C", rule):
            _iptables(paths, "-A" if rule[0] == "nat" else "-I", rule, must=True)
    return subnet


def remove_bridge(paths: Paths) -> None:
    """Undo ensure_bridge. Does nothing where nothing is."""
    remembered = paths.engine_run / "subnet"
    if remembered.exists() and paths.unpacked.joinpath("usr/sbin").exists():
        for rule in _rules(ipaddress.IPv4Network(remembered.read_text())):
            _iptables(paths, "-D", rule)
    remembered.unlink(missing_ok=True)
    if _exists(paths.bridge):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            _set_flags(control, paths.bridge, up=False)
            fcntl.ioctl(control, _SIOCBRDELBR, _name_buffer(paths.bridge))


def way_out_mtu() -> int:
    """MTU of the default route's interface, which containers must not exceed; Ethernet's 1500 without such a route."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        interface, destination = line.split()[:2]
        if destination == "00000000":
            return int(Path(f"/sys/class/net/{interface}/mtu").read_text())
    return 1500


def _rules(subnet: ipaddress.IPv4Network) -> list[list[str]]:
    net = str(subnet)
    return [
        ["nat", "POSTROUTING", "-s", net, "!", "-d", net, "-j", "MASQUERADE"],
        ["filter", "FORWARD", "-s", net, "-j", "ACCEPT"],
        ["filter", "FORWARD", "-d", net, "-j", "ACCEPT"],
    ]


def _iptables(paths: Paths, verb: str, rule: list[str], *, must: bool = False) -> bool:
    table, *rest = rule
    tool = paths.unpacked / "usr/sbin" / _backend(paths)
    try:
        run([tool, "iptables", "-w", "10", "-t", table, verb, *rest], env=_tool_environment(paths), timeout=30)
    except LabError:
        if must:
            raise
        return False
    return True


def _backend(paths: Paths) -> str:
    """nft where the kernel has it (Debian's default), else the legacy tables."""
    nft = "xtables-nft-multi"
    try:
        run(
            [paths.unpacked / "usr/sbin" / nft, "iptables", "-t", "nat", "-S"], env=_tool_environment(paths), timeout=30
        )
    except LabError:
        return "xtables-legacy-multi"
    return nft


def _tool_environment(paths: Paths) -> dict[str, str]:
    libraries = [str(folder) for folder in paths.libraries]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries), "XTABLES_LIBDIR": f"{libraries[0]}/xtables"}


def _free_subnet() -> ipaddress.IPv4Network:
    taken = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (socket.inet_ntoa(struct.pack("=L", int(fields[i], 16))) for i in (1, 7))
        taken.append(ipaddress.IPv4Network(f"{address}/{mask}", strict=False))
    for text in SUBNETS:
        subnet = ipaddress.IPv4Network(text)
        if not any(subnet.overlaps(other) for other in taken if other.prefixlen > 0):
            return subnet
    raise LabError(f"the subnets {', '.join(SUBNETS)} are all in use", "free one of them")


def _exists(interface: str) -> bool:
    return Path("/sys/class/net", interface).exists()


def _create_bridge(name: str, subnet: ipaddress.IPv4Network) -> None:
    first = ipaddress.IPv4Network(f"{subnet.network_address}/24")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        if not _exists(name):
            fcntl.ioctl(control, _SIOCBRADDBR, _name_buffer(name))
        fcntl.ioctl(control, _SIOCSIFADDR, _address_request(name, str(first.network_address + 1)))
        fcntl.ioctl(control, _SIOCSIFNETMASK, _address_request(name, str(first.netmask)))
        _set_flags(control, name, up=True)


def _set_flags(control: socket.socket, name: str, *, up: bool) -> None:
    answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh22x", name.encode(), 0))
    flags = struct.unpack("16sh22x", answer)[1]
    flags = flags | _IFF_UP if up else flags & ~_IFF_UP
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", name.encode(), flags))


def _address_request(name: str, address: str) -> bytes:
    """struct ifreq with a sockaddr_in."""
    return struct.pack("16sH2x4s16x", name.encode(), socket.AF_INET, socket.inet_aton(address))


def _name_buffer(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")
