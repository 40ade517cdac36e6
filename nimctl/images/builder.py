"""What the builder at hand can do: which driver it is of, and where its images lie."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nimctl.core.command import run
from nimctl.core.errors import NimctlError

_SWITCH = (
    'Switch Docker to containerd\'s image store (`"features": {"containerd-snapshotter": true}` in '
    "/etc/docker/daemon.json, then restart it), or use a builder of its own: `docker buildx create --use`."
)


@dataclass(frozen=True)
class Builder:
    """The builder that `docker buildx bake` would use. None: it could not be told, and BuildKit itself will say no.

    `driver` is `docker` (the engine's own BuildKit), `docker-container`, `kubernetes` or `remote`; `containerd` is
    whether the engine keeps images in containerd's store: https://docs.docker.com/engine/storage/containerd/
    """

    driver: str | None
    containerd: bool | None

    @property
    def classic(self) -> bool:
        """Whether images go to Docker's older store: one platform, layers as gzip, nothing beside an image."""
        return self.driver == "docker" and self.containerd is False


def look_at_builder(env: Mapping[str, str]) -> Builder:
    """Ask buildx and the engine. Never raises."""
    said = run(["docker", "buildx", "inspect"], timeout=20.0, env=env)
    words = (line.split(":", 1) for line in said.stdout.splitlines() if line.startswith("Driver:"))
    driver = next((value.strip() for _, value in words), None) if said.ok else None
    status = run(["docker", "info", "--format", "{{json .DriverStatus}}"], timeout=20.0, env=env)
    try:
        pairs = json.loads(status.stdout) if status.ok else None
    except ValueError:
        pairs = None
    containerd = None if pairs is None else "io.containerd.snapshotter" in json.dumps(pairs)
    return Builder(driver, containerd)


def require(builder: Builder, *, platforms: Sequence[str], compression: str | None, push: bool) -> None:
    """Raise `usage` or `image-build-failed` for what this builder cannot do, before it works for minutes."""
    if compression and not push:
        raise NimctlError(
            "usage",
            "--compression needs --push",
            cause="layers are compressed for a registry; on this host they lie as plain files",
            fix="Add --push and a --tag with a registry, or leave --compression out.",
        )
    if len(platforms) > 1 and not push and builder.driver not in ("docker", None):
        raise NimctlError(
            "usage",
            f"an image of {len(platforms)} platforms needs --push",
            cause=f"the builder is of the driver {builder.driver}, and hands Docker one platform at a time",
            fix="Add --push and a --tag with a registry, or name one --platform.",
        )
    if not builder.classic:
        return
    cannot = f"layers compressed with {compression}" if compression else f"{len(platforms)} platforms in one image"
    if compression or len(platforms) > 1:
        raise NimctlError(
            "image-build-failed",
            f"this Docker's image store cannot hold {cannot}",
            cause="it is the classic store, which knows one platform and its own compression",
            fix=_SWITCH,
        )
