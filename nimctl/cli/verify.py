"""`nimctl verify`: whose signatures an image or weights carry, and whether they are to be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nimctl.cli.options import Cache, Debug, Json, Quiet
from nimctl.cli.verb import verb


@verb("verify")
def verify(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="An image reference, a model (its image, and its weights where a rule is about them), an address of "
            "weights, or a folder. Left out: the configured model.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option("--key", help="Trust this public key instead of the rules; repeatable.", show_default=False),
    ] = None,
    signed_as: Annotated[
        str | None,
        typer.Option(help="With --key: the repository that the image was signed as.", show_default=False),
    ] = None,
    platform: Annotated[
        str | None, typer.Option(help="The platform of the image [default: this host's].", show_default=False)
    ] = None,
    signatures: Annotated[
        Path | None,
        typer.Option(
            "--signatures", metavar="DIR", help="Take the signatures from DIR, not the registry.", show_default=False
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(
            "--signature",
            metavar="FILE",
            help="The signature of weights [default: their model.sig].",
            show_default=False,
        ),
    ] = None,
    cache: Cache = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Verify the signatures of an image or of weights; exit 5 if none is good.

    Whom to trust is said by --key, else by the rules under `trust` of the configuration. Nothing is pulled, and nothing
    is asked but the registry that holds the image.

    Example:  nimctl verify nvcr.io/nim/moonshotai/kimi-k2.5:1.7.0-variant --key ngc.pub
    """
    from nimctl.cli import config as configuration
    from nimctl.cli.proofs import verifying
    from nimctl.render import Output

    out = Output.choose("verify", as_json=as_json, quiet=quiet)
    config = configuration.load({"cache": cache})
    given = verifying.Given(tuple(key or ()), signed_as, platform, signatures, signature)
    verifying.verify(model, given, config, out)
