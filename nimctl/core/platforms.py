"""What a machine is called as the platform of an image: https://github.com/opencontainers/image-spec/blob/main/config.md."""

import platform

# What the kernel calls a machine (`uname -m`), and what Go and with it every registry calls it:
# https://github.com/containerd/platforms/blob/main/database.go
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture_of(machine: str) -> str:
    """The architecture of an image for a machine that calls itself `x86_64`; a name of the other kind stays."""
    return _ARCHITECTURES.get(machine, machine)


def own_platform() -> str:
    """The platform of this host's images: `linux/amd64`."""
    return f"linux/{architecture_of(platform.machine())}"
