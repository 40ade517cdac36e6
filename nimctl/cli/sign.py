"""`nimctl sign`: sign an image in its registry with a key of one's own, or make such a key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nimctl.cli.options import Debug, Json, Quiet
from nimctl.cli.verb import verb


@verb("sign")
def sign(
    image: Annotated[
        str | None, typer.Argument(metavar="[IMAGE]", help="The image, in its registry.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="The private key: an EC key in PEM form.", show_default=False)
    ] = None,
    generate: Annotated[
        Path | None,
        typer.Option(
            "--generate", metavar="DIR", help="Make a pair of keys there instead, and sign nothing.", show_default=False
        ),
    ] = None,
    passphrase_stdin: Annotated[
        bool,
        typer.Option(
            "--passphrase-stdin", help="Read the key's passphrase from stdin; else from NIMCTL_SIGN_PASSPHRASE."
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Sign IMAGE in its registry with a local key.

    What is signed is the digest that the name stands for now, which is printed. The signature is pushed beside the
    image in both forms that cosign reads; it goes to no transparency log.

    Example:  nimctl sign registry.example.com/models/cuda:1.0 --key nimctl.key
    """
    from nimctl.cli.proofs import signing
    from nimctl.core.errors import NimctlError
    from nimctl.render import Output

    out = Output.choose("sign", as_json=as_json, quiet=quiet)
    if generate is not None and image is None and key is None:
        signing.make_pair(generate, out, from_stdin=passphrase_stdin)
        return
    if generate is not None or image is None or key is None:
        raise NimctlError(
            "usage",
            "what to sign, or with what, is not clear",
            cause="an image and its key are needed, or --generate alone",
            fix="`nimctl sign IMAGE --key FILE`, or `nimctl sign --generate DIR`.",
        )
    signing.sign_and_push(image, key, out, from_stdin=passphrase_stdin)
