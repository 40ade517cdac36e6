"""`nimctl build`: build our images through BuildKit."""

import os
from pathlib import Path
from typing import Annotated

import typer

from nimctl.cli.options import Debug, Json, Quiet
from nimctl.cli.verb import verb


@verb("build")
def build(
    target: Annotated[str, typer.Argument(help="cuda or cpu.")],
    tag: Annotated[str | None, typer.Option(help="Name of the image [default: nimctl/TARGET:VERSION].")] = None,
    platform: Annotated[list[str] | None, typer.Option(help="Platform such as linux/arm64; repeatable.")] = None,
    push: Annotated[bool, typer.Option("--push", help="Push to the registry in the tag.")] = False,
    base: Annotated[str | None, typer.Option(help="Base image instead of Debian's.")] = None,
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
    from nimctl.core.errors import NimctlError
    from nimctl.render import Output

    out = Output.choose("build", as_json=as_json, quiet=quiet)
    if target not in ("cuda", "cpu"):
        raise NimctlError("usage", f"there is no image {target!r}", cause="images: cuda, cpu", fix="nimctl build cpu")
    name = tag or images.local_tag(target)
    with out.transfer(f"building {name}") as view:
        built = images.build(
            target,
            env=os.environ,
            tag=name,
            platforms=tuple(platform or ()),
            push=push,
            base=base,
            wheels=wheels,
            ca=ca,
            on_line=view.line,
        )
    out.document({"ok": True, "image": name, "digest": built.digest})
    if out.mode != "json":
        out.result(name)
