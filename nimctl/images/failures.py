"""What went wrong in a build: the client's last lines as one error with a cause and a fix."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nimctl.core.errors import NimctlError
from nimctl.images.progress import parse_line


@dataclass(frozen=True)
class _Known:
    """A failure that is recognised by what the client or a step wrote."""

    pattern: str
    id: str
    cause: str
    fix: str


# The first that matches wins; the patterns are the words of dockerd, BuildKit, apt and pip.
_FAILURES = (
    _Known(
        r"no space left on device",
        "disk-full",
        "the filesystem of Docker's image store, or of its build cache, is full",
        "free some room: `docker builder prune`, `docker image prune`; the cpu image needs 8 GB, the cuda image 40 GB",
    ),
    _Known(
        r"permission denied while trying to connect|dial unix .*: permission denied",
        "docker-permission",
        "this user may not open Docker's socket",
        "join the docker group (`sudo usermod -aG docker $USER`, then log in again)",
    ),
    _Known(
        r"Cannot connect to the Docker daemon|failed to connect to the docker API|Is the docker daemon running",
        "docker-unreachable",
        "no Docker daemon answers at the configured address",
        "start it (`sudo systemctl start docker`) or correct DOCKER_HOST",
    ),
    _Known(
        r"exec format error",
        "image-build-failed",
        "this machine cannot run programs of the other platform",
        "register an emulator: `docker run --privileged --rm tonistiigi/binfmt --install all`, or Debian's "
        "qemu-user-static; or build on a machine of that platform",
    ),
    _Known(
        r"[Mm]ulti-platform build is not supported|does not support multi-platform|multiple platforms feature"
        r"|does not currently support exporting manifest lists",
        "image-build-failed",
        "this builder makes images of one platform only",
        "switch Docker to containerd's image store, or `docker buildx create --use`; or name one --platform",
    ),
    _Known(
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|certificate signed by unknown authority",
        "image-build-failed",
        "a download was refused because its TLS certificate is not trusted, as behind an inspecting proxy",
        "name the proxy's CA bundle with --ca, or set SSL_CERT_FILE",
    ),
    _Known(
        r"DO NOT MATCH THE HASHES",
        "image-build-failed",
        "the package index served a file that differs from the locked one",
        "use another index, and do not install that file: it is damaged or was replaced",
    ),
    _Known(
        r"failed to resolve source metadata|pull access denied|manifest unknown",
        "image-build-failed",
        "the base image cannot be fetched",
        "check the network and the registry, or name a Debian 12 image that is here with --base",
    ),
    _Known(
        r"requested access to the resource is denied|denied: |insufficient_scope|403 Forbidden",
        "key-refused",
        "the registry lets this login not push to this repository",
        "log in with a key that may write there: `nimctl login REGISTRY`; or correct --tag",
    ),
    _Known(
        r"no basic auth credentials|401 Unauthorized|unauthorized: authentication required|unauthorized: ",
        "key-missing",
        "the registry takes no image without a login",
        "log in first: `nimctl login REGISTRY`",
    ),
    _Known(
        r"> pushing |failed to push|failed to do request: (Head|Post|Put|Patch)|server gave HTTP response to HTTPS",
        "image-build-failed",
        "the image was built, and its registry cannot be reached or broke off",
        "check the registry in --tag and the network, and build again: nothing is built twice",
    ),
    _Known(
        r"unsupported compression|invalid compression",
        "image-build-failed",
        "this builder cannot compress layers so",
        "leave --compression out, or use a newer builder: `docker buildx create --use`",
    ),
    _Known(
        r"Temporary failure (resolving|in name resolution)|Name or service not known|Network is unreachable",
        "image-build-failed",
        "the build cannot reach a package index or a Debian mirror",
        "check the network, DNS and proxy of Docker's builds; HTTPS_PROXY and pip's configuration are passed on",
    ),
    _Known(
        r"No matching distribution found",
        "image-build-failed",
        "the package index does not have a locked package for this platform",
        "point pip at a complete index, or give a folder of wheels with --wheels",
    ),
)


def failure(target: str, code: int, tail: Sequence[str]) -> NimctlError:
    """The error for a client that ended with `code`, with the failing step and its last lines as evidence."""
    text = "\n".join(tail)
    steps = [step for step in map(parse_line, tail) if step]
    failed = next((step for step in steps if step.state == "error"), None)
    name = next((s.text for s in steps if failed and s.number == failed.number and s.state == "started"), "")
    if failed:
        wrote = [step.text for step in steps if step.number == failed.number and step.state == "log"]
        evidence = [line for line in (name, *wrote[-8:], failed.text) if line]
    else:
        evidence = [line for line in tail if line.strip()][-8:]
    known = next((known for known in _FAILURES if re.search(known.pattern, text)), None)
    return NimctlError(
        known.id if known else "image-build-failed",
        f"building the {target} image failed" + (f" in step {name}" if name else ""),
        cause=known.cause if known else f"docker buildx bake ended with exit code {code}; its last lines are below",
        fix=known.fix if known else "correct what the last lines say and build again: finished steps are kept",
        evidence=evidence,
    )
