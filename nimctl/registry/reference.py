"""Image references: `nvcr.io/nim/org/name:tag`, `localhost:5000/a/b@sha256:...`, `ubuntu`."""

import ipaddress
import re
from dataclasses import dataclass

from nimctl.core.errors import NimctlError

DOCKER_HUB = "docker.io"

# The grammar of https://github.com/distribution/reference/blob/main/reference.go
_HOST = re.compile(r"(localhost|[A-Za-z0-9\-]+(\.[A-Za-z0-9\-]+)+|[A-Za-z0-9.\-]+(?=:\d)|\[[0-9A-Fa-f:]+\])(:\d{1,5})?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REST = re.compile(
    rf"(?P<repository>{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.\-]{{0,127}}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Reference:
    """An image in a registry. At least one of `tag` and `digest` is set; a digest outweighs the tag."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def target(self) -> str:
        """What the registry is asked for: the digest, else the tag."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def parse(text: str) -> Reference:
    """The reference that `text` stands for, as docker reads it: no registry means Docker Hub, no tag means `latest`.

    Raises `usage`.
    """
    registry, rest = DOCKER_HUB, text
    first, slash, remainder = text.partition("/")
    if slash and _HOST.fullmatch(first):
        registry, rest = first, remainder
    found = _REST.fullmatch(rest)
    if found is None:
        raise NimctlError(
            "usage",
            f"{text!r} is not an image reference",
            cause="it is not of the form [REGISTRY/]NAME[:TAG][@sha256:DIGEST] in lower case",
            fix="Write it as docker would, for example nvcr.io/nim/moonshotai/kimi-k2.5-turbo:1.0.0.",
        )
    repository, tag, digest = found["repository"], found["tag"], found["digest"]
    if registry in (DOCKER_HUB, "index.docker.io", "registry-1.docker.io"):
        registry = DOCKER_HUB
        repository = repository if "/" in repository else f"library/{repository}"
    return Reference(registry, repository, tag if tag or digest else "latest", digest)


def is_loopback(host: str) -> bool:
    """True for a host (with or without port) that is this machine itself."""
    name = re.sub(r":\d+$", "", host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
