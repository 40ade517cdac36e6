"""`nimctl build`: build our images through BuildKit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nimctl.cli.options import Debug, Json, Quiet
from nimctl.cli.verb import verb

if TYPE_CHECKING:
    from nimctl.render import Output
    from nimctl.trust.keys import PrivateKey


@verb("build")
def build(
    target: Annotated[str, typer.Argument(help="cuda or cpu.")],
    tag: Annotated[str | None, typer.Option(help="Name of the image [default: nimctl/TARGET:VERSION].")] = None,
    platform: Annotated[list[str] | None, typer.Option(help="Platform such as linux/arm64; repeatable.")] = None,
    push: Annotated[
        bool, typer.Option("--push", help="Push to the registry in the tag, with SBOM and provenance.")
    ] = False,
    sign_key: Annotated[
        Path | None, typer.Option("--sign-key", help="With --push: sign the image with this key (see `nimctl sign`).")
    ] = None,
    compression: Annotated[str | None, typer.Option(help="Of pushed layers: gzip or zstd.")] = None,
    sbom: Annotated[Path | None, typer.Option(help="File for the list of parts (CycloneDX).")] = None,
    provenance: Annotated[Path | None, typer.Option(help="File for the provenance (SLSA).")] = None,
    base: Annotated[str | None, typer.Option(help="Base image instead of Debian's.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="Debian's packages of a moment: 20261120T000000Z.")] = None,
    wheels: Annotated[Path | None, typer.Option(help="Folder of wheels to prefer [default: pip's own].")] = None,
    ca: Annotated[Path | None, typer.Option(help="CA bundle for the build's network [default: pip's own].")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Build the image `cuda` or `cpu` from this version of nimctl.

    Example:  nimctl build cpu
    """
    from nimctl import images
    from nimctl.cli import describing
    from nimctl.core.errors import NimctlError
    from nimctl.render import Output

    out = Output.choose("build", as_json=as_json, quiet=quiet)
    if target not in ("cuda", "cpu"):
        raise NimctlError("usage", f"there is no image {target!r}", cause="images: cuda, cpu", fix="nimctl build cpu")
    name = tag or images.local_tag(target)
    key = _key(sign_key, push=push)
    where = describing.destination(name) if push else None
    describing.require_writable(sbom, provenance)
    with out.transfer(f"building {name}") as view:
        built = images.build(
            target,
            env=os.environ,
            tag=name,
            platforms=tuple(platform or ()),
            push=push,
            base=base,
            snapshot=snapshot,
            wheels=wheels,
            ca=ca,
            compression=compression,
            described=push or sbom is not None or provenance is not None,
            on_line=view.line,
        )
    described = describing.describe(built, where, out)
    describing.write(described, sbom=sbom, provenance=provenance)
    document = {"ok": True, "image": name, "digest": described.digest or built.digest, "config": built.config}
    signed = _sign(name, described.digest, key, out) if key and described.digest else []
    out.document({**document, "attestations": list(described.pushed), "signatures": signed})
    if out.mode != "json":
        out.result(f"{name}@{described.digest}" if described.digest else name)


def _key(path: Path | None, *, push: bool) -> PrivateKey | None:
    """The key to sign with, read before a build of minutes. Raises `usage`, `trust-invalid`."""
    from nimctl.cli.proofs import key_file
    from nimctl.core.errors import NimctlError

    if path is not None and not push:
        raise NimctlError(
            "usage",
            "--sign-key needs --push",
            cause="a signature lies beside an image in a registry",
            fix="Add --push and a --tag with the registry.",
        )
    return key_file.private_key(path) if path else None


def _sign(image: str, digest: str, key: PrivateKey, out: Output) -> list[str]:
    from nimctl.cli.proofs.signing import push_signatures

    pushed = push_signatures(image, digest, key)
    out.text(f"signed {digest} with key {key.public.fingerprint[:12]}")
    return pushed
