"""NVIDIA's driver branches as data: what kind each is, how long it is supported, and which GPUs need which module."""

from collections.abc import Mapping
from dataclasses import dataclass

SOURCE = "https://docs.nvidia.com/datacenter/tesla/drivers/supported-drivers-and-cuda-toolkit-versions.html"
READ = "2026-09"  # the month of that page


@dataclass(frozen=True)
class Branch:
    """A branch, such as R580: its kind, and the last month in which it is supported ("2028-06").

    `until` is None for a branch that the page no longer lists: its support has ended, on a day that is not stated.
    """

    kind: str
    until: str | None


BRANCHES: Mapping[int, Branch] = {
    535: Branch("long-term support", "2026-06"),
    570: Branch("production", "2026-02"),
    575: Branch("new feature", None),
    580: Branch("long-term support", "2028-06"),
    590: Branch("new feature", None),
    595: Branch("production", "2027-03"),
    610: Branch("new feature", "2026-08"),
}


def has_ended(branch: Branch, month: str) -> bool:
    """Whether its support is over in `month` (such as "2026-10"), as far as the page tells."""
    return month > (branch.until or READ)


# Blackwell and what follows it work with the open kernel modules only:
# https://developer.nvidia.com/blog/nvidia-transitions-fully-towards-open-source-gpu-kernel-modules/
# https://download.nvidia.com/XFree86/Linux-x86_64/595.58.03/README/kernel_open.html
NEEDS_OPEN = ("blackwell", "rubin")
# PCI device ids of Blackwell's chips, from and to:
# https://github.com/NVIDIA/gpu-admin-tools/blob/main/gpu/devid_chips.py; GB10 (2e12) is in none of its ranges.
_BLACKWELL = ((0x2900, 0x29FF), (0x2B80, 0x2C7F), (0x2D00, 0x2DFF), (0x2E12, 0x2E12), (0x2F00, 0x2F7F))


def is_blackwell(device: str) -> bool:
    """Whether a PCI device id such as "2901" is that of a Blackwell GPU."""
    try:
        number = int(device, 16)
    except ValueError:
        return False
    return any(first <= number <= last for first, last in _BLACKWELL)
