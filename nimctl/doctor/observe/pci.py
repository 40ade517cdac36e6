"""PCI devices as /sys shows them: NVIDIA's GPUs and switches, and the bridges above them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nimctl.doctor.observe.files import names, read

NVIDIA = "0x10de"
# Classes of PCI devices, as https://pci-ids.ucw.cz/read/PD lists them.
_DISPLAY = "0x03"
_OTHER_BRIDGE = "0x0680"  # NVSwitches call themselves so
# Configuration space: PCI Express Base Specification, the chapters "Configuration Space" and "ACS Extended Capability".
_EXTENDED = 0x100  # where extended capabilities begin
_MOST_CAPABILITIES = 64
_ACS = 0x000D
_ACS_CONTROL = 6  # bytes after the capability's head
_REDIRECTS = 0b11100  # P2P Request Redirect, P2P Completion Redirect, Upstream Forwarding


@dataclass(frozen=True)
class PciDevice:
    """A PCI device by its folder in /sys; `device` is its id in hexadecimal, `driver` the kernel driver that holds it.

    `kind` is its class, such as "0x030200".
    """

    path: Path
    device: str
    kind: str
    driver: str | None

    @property
    def is_gpu(self) -> bool:
        """Whether it is a display controller: VGA, 3D, or another of that class."""
        return self.kind.startswith(_DISPLAY)

    @property
    def is_nvswitch(self) -> bool:
        """Whether it is one of NVIDIA's bridges that are no bridge of a known kind."""
        return self.kind.startswith(_OTHER_BRIDGE)


def nvidia_devices(root: Path) -> tuple[PciDevice, ...] | None:
    """NVIDIA's devices on the PCI bus below `root`; None where the bus cannot be seen."""
    folder = root / "sys/bus/pci/devices"
    found = names(folder)
    if found is None:
        return None
    return tuple(_device(folder / name) for name in found if read(folder / name / "vendor") == NVIDIA)


def _device(path: Path) -> PciDevice:
    driver = None
    with suppress(OSError):  # no driver holds it
        driver = (path / "driver").readlink().name
    return PciDevice(path, (read(path / "device") or "").removeprefix("0x"), read(path / "class") or "", driver)


def redirecting_bridges(devices: tuple[PciDevice, ...]) -> int | None:
    """How many bridges above `devices` send peer-to-peer traffic to the root; None where that may not be read."""
    bridges = {bridge for device in devices for bridge in _above(device.path)}
    told = [_redirects(bridge) for bridge in sorted(bridges)]
    return None if None in told else sum(bool(answer) for answer in told)


def _above(device: Path) -> Iterator[Path]:
    """The bridges between a device and the root: the folders around its own that are PCI devices as well."""
    try:
        real = device.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a circle of links
        return
    for parent in real.parents:
        if not (parent / "vendor").exists():
            break
        yield parent


def _redirects(bridge: Path) -> bool | None:
    """Whether its Access Control Services redirect; None where this user sees the first 64 bytes only."""
    try:
        with (bridge / "config").open("rb", buffering=0) as config:
            return _acs_redirects(config.fileno())
    except OSError:
        return None


def _acs_redirects(config: int) -> bool | None:
    """The answer in an open configuration space, of which each capability is read alone: the hardware is slow."""
    at = _EXTENDED
    for _ in range(_MOST_CAPABILITIES):
        head = os.pread(config, 4, at)
        if len(head) < 4:
            # Conventional PCI ends at byte 256; that it does can be told only by who may read that far.
            return False if os.pread(config, 1, _EXTENDED - 1) else None
        value = int.from_bytes(head, "little")
        if value & 0xFFFF == _ACS:
            control = os.pread(config, 2, at + _ACS_CONTROL)
            return bool(int.from_bytes(control, "little") & _REDIRECTS)
        at = value >> 20  # of the next one; 0 and nonsense end the list
        if at < _EXTENDED or value == 0xFFFF_FFFF:
            break
    return False
