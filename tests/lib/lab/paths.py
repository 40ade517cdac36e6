"""Where the lab keeps its state: one folder outside the clone, so that every fresh clone finds what the last one built.

Unix socket paths may not exceed 107 bytes, which is why the folder has a short name and sockets lie in `run/`.
"""

import hashlib
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Store = Literal["classic", "containerd"]
STORES: tuple[Store, ...] = ("classic", "containerd")

DEFAULT_STATE = Path("/var/tmp/nimctl-lab")
MULTIARCH = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


def multiarch() -> str:
    """Debian's name for this processor's library folder, such as `x86_64-linux-gnu`."""
    machine = platform.machine()
    return MULTIARCH.get(machine, f"{machine}-linux-gnu")


@dataclass(frozen=True)
class Paths:
    """Every place below the state folder; see the properties for what lies where.

    `store` says which of the two engines is meant: the one with Docker's classic image store, or the one with
    containerd's. What is the engine's own (`engine_*`, `docker_socket`, `bridge`) differs; all else is shared.
    """

    state: Path
    store: Store = "classic"

    def with_store(self, store: Store) -> "Paths":
        """The same lab, meaning the engine with this image store."""
        return replace(self, store=store)

    @property
    def unpacked(self) -> Path:
        """Root of the unpacked Debian packages (`usr/sbin/dockerd`, ...)."""
        return self.state / "root"

    @property
    def apt(self) -> Path:
        return self.state / "apt"

    @property
    def run(self) -> Path:
        """Sockets, pid files and generated configuration of what runs now."""
        return self.state / "run"

    @property
    def lock(self) -> Path:
        """Held by who starts or stops parts of the lab. Beside the folder, which may be deleted."""
        return self.state.with_name(f"{self.state.name}.lock")

    @property
    def engine_home(self) -> Path:
        """Where the engine keeps its `docker`, `containerd`, `run` and `log`."""
        return self.state if self.store == "classic" else self.state / "containerd-store"

    @property
    def engine_run(self) -> Path:
        return self.engine_home / "run"

    @property
    def engine_logs(self) -> Path:
        return self.engine_home / "log"

    @property
    def logs(self) -> Path:
        return self.state / "log"

    @property
    def docker_socket(self) -> Path:
        return self.engine_run / "docker.sock"

    @property
    def docker_config(self) -> Path:
        """The `DOCKER_CONFIG` folder of the lab's own client; tests that log in make their own."""
        return self.state / "docker-config"

    @property
    def base_tarball(self) -> Path:
        return self.state / "base" / "bookworm.tar"

    @property
    def registry(self) -> Path:
        return self.state / "registry"

    @property
    def gpus(self) -> Path:
        """The NVML double, the profiles, the stand-ins of the toolkit and the CDI folder."""
        return self.state / "gpus"

    @property
    def cdi(self) -> Path:
        return self.gpus / "cdi"

    @property
    def bridge(self) -> str:
        """The network interface of the engine; a lab in another folder has another, so that two can run."""
        if self.state == DEFAULT_STATE:
            return "nimctl-lab0" if self.store == "classic" else "nimctl-lab1"
        return f"nimlab-{hashlib.sha256(bytes(self.engine_home)).hexdigest()[:7]}"

    @property
    def binaries(self) -> tuple[Path, Path]:
        return self.unpacked / "usr/sbin", self.unpacked / "usr/bin"

    @property
    def libraries(self) -> tuple[Path, Path]:
        return self.unpacked / "usr/lib" / multiarch(), self.unpacked / "lib" / multiarch()

    @property
    def buildx_folder(self) -> Path:
        return self.unpacked / "usr/libexec/docker/cli-plugins"

    def make(self) -> None:
        """Create the folders that everything needs. The state folder is root's alone: it holds a signing key."""
        self.state.mkdir(mode=0o755, parents=True, exist_ok=True)
        for folder in (
            self.run,
            self.logs,
            self.engine_run,
            self.engine_logs,
            self.apt,
            self.unpacked,
            self.docker_config,
            self.registry,
            self.cdi,
        ):
            folder.mkdir(parents=True, exist_ok=True)


def paths(store: Store = "classic") -> Paths:
    """The state folder: `$NIMCTL_LAB_DIR`, else `/var/tmp/nimctl-lab`; `store` says which engine is meant."""
    return Paths(Path(os.environ.get("NIMCTL_LAB_DIR") or DEFAULT_STATE), store)
