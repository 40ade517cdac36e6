"""Build our two images through BuildKit: `docker buildx bake`, nothing else.

What differs between hosts (base image, local wheels, CA bundle, package index, proxies) is read from the machine's own
configuration (`inputs`) and handed to BuildKit as named contexts and secrets, so that no host's settings ever end up
in a layer, or in the history of builds that BuildKit keeps. The recipe itself is in `images/` of the checkout, and is
installed with the package as `nimctl/images/recipe/`; the container's share of our own code is taken from the packages
that run now.
"""

import re
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.core.image_names import ENGINE_VERSION, TARGETS, local_tag
from nimctl.images import provenance
from nimctl.images.bake import bake_command, bake_variables, digest_of, sbom_command
from nimctl.images.builder import look_at_builder, require
from nimctl.images.client import lines_of, require_buildx, started
from nimctl.images.described import inputs_of, read_sboms
from nimctl.images.failures import failure
from nimctl.images.inputs import detect, write_pip_config, write_proxies
from nimctl.images.progress import Step, parse_line, summary
from nimctl.images.source import Source, find_source

__all__ = ["COMPRESSIONS", "ENGINE_VERSION", "TARGETS", "Build", "build", "find_source", "local_tag"]

KEPT_LINES = 200  # of the client, to tell a failure from: the failing step and what it wrote last
COMPRESSIONS = ("gzip", "zstd")
_SNAPSHOT = re.compile(r"\d{8}T\d{6}Z")


@dataclass(frozen=True)
class Build:
    """A finished build: the image's name and digests (None where the builder reports none), and how it went.

    `digest` is what the builder calls the image, `config` the digest of its configuration, by which Docker's classic
    store knows it. `cached` and `rebuilt` are the names of the recipe's steps that came from the build cache and that
    had to run. `sboms` are its lists of parts (CycloneDX) by platform, "" where there is one platform only, and
    `provenances` what SLSA asks about each. `platforms` are those that were asked for.
    """

    tag: str
    digest: str | None
    config: str | None
    cached: tuple[str, ...]
    rebuilt: tuple[str, ...]
    sboms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    provenances: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()


def build(
    target: str,
    *,
    env: Mapping[str, str],
    tag: str | None = None,
    platforms: Sequence[str] = (),
    push: bool = False,
    base: str | None = None,
    snapshot: str | None = None,
    wheels: Path | None = None,
    ca: Path | None = None,
    compression: str | None = None,
    described: bool = False,
    on_line: Callable[[str], None] = lambda line: None,
) -> Build:
    """Build `cpu` or `cuda` and leave it in the engine's image store (or push it) as `tag`, by default `local_tag`.

    `platforms` such as `linux/arm64` default to the builder's own; `base` is any Debian 12 image; `wheels` and `ca`
    default to what this machine's pip and TLS settings name. `snapshot` is a moment (`20261120T000000Z`) whose Debian
    packages are taken. `compression` is one of COMPRESSIONS, for a push. With `described` the result has `sboms` and
    `provenances`. `on_line` gets every line of BuildKit's plain progress.

    Raises `usage`, `docker-missing`, `docker-unreachable`, `docker-permission`, `disk-full`, `key-missing`,
    `key-refused` (of a push) or `image-build-failed`.
    """
    _check(compression, snapshot)
    found, source, name = detect(env), find_source(), tag or local_tag(target)
    require_buildx(env)
    if compression or len(platforms) > 1:
        require(look_at_builder(env), platforms=platforms, compression=compression, push=push)
    began = _now()
    with tempfile.TemporaryDirectory(prefix="nimctl-build-") as folder:
        variables = bake_variables(
            source=source,
            tag=name,
            env=env,
            platforms=platforms,
            base=base,
            snapshot=snapshot,
            wheels=wheels or found.wheels,
            ca=ca or found.ca,
            pip=write_pip_config(Path(folder), found.pip),
            proxy=write_proxies(Path(folder), env),
        )
        # What buildx would say of the build by itself knows the time of day, and would make it another image each time.
        around = {**env, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", **variables}
        metadata, parts = Path(folder) / "metadata.json", Path(folder) / "parts"
        argv = bake_command(target, source=source, metadata=metadata, push=push, compression=compression)
        steps = _bake(target, argv, around, source, on_line)
        sboms: dict[str, Mapping[str, Any]] = {}
        if described:
            _bake(target, sbom_command(target, source=source, folder=parts), around, source, on_line)
            sboms = read_sboms(parts)
        digest, config = digest_of(target, metadata), digest_of(target, metadata, config=True)
    ended, told = _now(), inputs_of(target, around, source, steps) if described else None
    provenances = {
        where: provenance.provenance(told, sbom["components"], began=began, ended=ended)
        for where, sbom in sboms.items()
        if told
    }
    return Build(name, digest, config, *summary(steps), sboms, provenances, tuple(platforms))


def _check(compression: str | None, snapshot: str | None) -> None:
    if compression is not None and compression not in COMPRESSIONS:
        raise NimctlError(
            "usage",
            f"--compression {compression} is not known",
            cause=f"layers are compressed with {' or '.join(COMPRESSIONS)}",
            fix="nimctl build cpu --push --compression zstd",
        )
    if snapshot is not None and not _SNAPSHOT.fullmatch(snapshot):
        raise NimctlError(
            "usage",
            f"--snapshot {snapshot!r} is no moment",
            cause="Debian's archive of the past is asked with a date and a time, such as 20261120T000000Z",
            fix="nimctl build cpu --snapshot 20261120T000000Z",
        )


def _bake(
    target: str, argv: Sequence[str], env: Mapping[str, str], source: Source, on_line: Callable[[str], None]
) -> list[Step]:
    """Run one `docker buildx bake`; returns what it did."""
    tail, steps = deque[str](maxlen=KEPT_LINES), list[Step]()
    with started(argv, env, source.root) as process:
        for line in lines_of(process):
            tail.append(line)
            on_line(line)
            if (step := parse_line(line)) and step.state != "log":
                steps.append(step)
    if process.returncode:
        raise failure(target, process.returncode, tail)
    return steps


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
