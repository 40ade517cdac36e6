"""What a built image is described by, as files and beside the image in its registry: list of parts, provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nimctl.core.errors import NimctlError
from nimctl.core.platforms import own_platform

if TYPE_CHECKING:  # these rooms cost start-up time
    from nimctl.images import Build
    from nimctl.registry.login import Login
    from nimctl.registry.reference import Reference
    from nimctl.registry.resolving import RemoteImage
    from nimctl.render import Output

_IN_TOTO = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Destination:
    """Where an image is pushed to, and as whom."""

    reference: Reference
    login: Login | None


@dataclass(frozen=True)
class Described:
    """The documents by platform ("" where there is one): `sboms` as CycloneDX, `provenances` as in-toto statements.

    `digest` is what the tag stands for in the registry after a push, `pushed` the digests of what lies beside it.
    """

    sboms: Mapping[str, Mapping[str, Any]]
    provenances: Mapping[str, Mapping[str, Any]]
    digest: str | None = None
    pushed: tuple[str, ...] = ()


def destination(tag: str) -> Destination:
    """The registry that `tag` names, with the stored login. Raises `usage` for a tag without a registry."""
    from nimctl.registry.credentials import config_folder, stored_or_key
    from nimctl.registry.reference import DOCKER_HUB, parse

    reference = parse(tag)
    if reference.registry == DOCKER_HUB and not tag.startswith(DOCKER_HUB):
        raise NimctlError(
            "usage",
            "--push needs to know where",
            cause=f"{tag} names no registry, and Docker would take its own hub",
            fix=f"Name it: --tag registry.example/{tag} (or docker.io/...).",
        )
    return Destination(reference, stored_or_key(reference.registry, config_folder(), os.environ)[0])


def require_writable(*files: Path | None) -> None:
    """Raise `usage` for a file that could not be written after a build of minutes."""
    for file in files:
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise NimctlError(
                "usage", f"{file} cannot be written", cause="it is a folder, or its folder does not exist",
                fix="Name a file in a folder that exists.",
            )  # fmt: skip


def describe(built: Build, where: Destination | None, out: Output) -> Described:
    """Statements about what was built; after a push also beside the image in its registry.

    Raises `image-tampered` where the registry holds another image than was built, and what a push raises.
    """
    from nimctl.images.provenance import CYCLONEDX, PROVENANCE, statement

    if where is None:
        digest = built.config or built.digest or ""
        made = {name: statement(built.tag, digest, PROVENANCE, each) for name, each in built.provenances.items()}
        return Described(built.sboms, made)
    from nimctl.registry.pushing import Layer, push_artifact

    made, pushed, index = {}, [], None
    with out.working(f"describing {where.reference} in its registry"):
        for platform, sbom in built.sboms.items():
            remote = _remote(where, platform, built)
            subject, index = str(remote.identity.manifest), remote.identity.digest
            made[platform] = statement(built.tag, subject, PROVENANCE, built.provenances[platform])
            for kind, document in (
                (CYCLONEDX, statement(built.tag, subject, CYCLONEDX, sbom)),
                (PROVENANCE, made[platform]),
            ):
                layer = Layer(_IN_TOTO, json.dumps(document).encode(), {"in-toto.io/predicate-type": kind})
                note = {"in-toto.io/predicate-type": kind}
                pushed.append(
                    push_artifact(
                        where.reference, where.login, artifact_type=_IN_TOTO, layers=[layer], subject=subject,
                        annotations=note,
                    )
                )  # fmt: skip
    return Described(built.sboms, made, index, tuple(pushed))


def _remote(where: Destination, platform: str, built: Build) -> RemoteImage:
    """The image as its registry holds it now; `platform` is "" where only one was built."""
    from nimctl.registry.resolving import resolve_image

    remote = resolve_image(where.reference, where.login, platform or next(iter(built.platforms), own_platform()))
    known = {built.digest, built.config} - {None}
    if known and not known & set(remote.identity.digests):
        raise NimctlError(
            "image-tampered",
            f"{where.reference} is not the image that was pushed",
            cause=f"its registry answers with {remote.identity.digest}: somebody else pushed to this tag",
            fix="Push to a tag of its own, then compare what both hold.",
        )
    return remote


def write(described: Described, *, sbom: Path | None, provenance: Path | None) -> None:
    """The documents as files; for several platforms each in a file whose name ends with its platform."""
    for file, documents in ((sbom, described.sboms), (provenance, described.provenances)):
        for platform, document in documents.items() if file else ():
            suffix = f".{platform.replace('/', '-')}" if platform else ""
            target = file.with_name(f"{file.stem}{suffix}{file.suffix}") if file else Path()
            target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
