"""Which packages of the distribution brought the programs that matter here, and who built them."""

from dataclasses import dataclass
from typing import Literal

# The names that distributions and NVIDIA give to the parts of the driver, as patterns of fnmatch.
DRIVER_PACKAGES = (
    "nvidia-driver*",
    "nvidia-open*",
    "nvidia-kernel*",
    "nvidia-dkms*",
    "nvidia-headless*",
    "nvidia-utils*",
    "nvidia-compute*",
    "linux-modules-nvidia*",
    "libnvidia-compute*",
    "libcuda1",
    "cuda-drivers*",
    "kmod-nvidia*",
    "akmod-nvidia*",
    "xorg-x11-drv-nvidia*",
)


@dataclass(frozen=True)
class Package:
    """An installed package. `origin`: built by the project itself or by a distribution; None where that is not told."""

    name: str
    version: str
    manager: Literal["dpkg", "rpm"]
    origin: Literal["upstream", "distribution"] | None = None
