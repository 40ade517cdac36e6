"""`nimctl bundle`: everything for a host without a network, in one folder of plain files."""

from pathlib import Path
from typing import Annotated

import typer

from nimctl.cli.options import Cache, Debug, Gpus, Image, Json, Model, Quiet, Verify
from nimctl.cli.verb import verb

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Everything for a host without a network, in one folder: make, verify, load.",
)

# Not "bundle": the document in the folder has that schema.
_REPORT = "bundle-report"

Folders = Annotated[
    list[Path],
    typer.Argument(metavar="DIR...", help="The bundle; several folders where it was spread over several media."),
]
Key = Annotated[
    Path | None,
    typer.Option(help="The public key that must have signed the bundle.", show_default=False),
]


@app.command("create")
@verb(_REPORT)
def create(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is empty, not there, or unfinished.")],
    model: Model = None,
    lock: Annotated[
        Path | None, typer.Option(help="Carry exactly this [default: ./nimctl.lock where there is one].")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Cut files into parts below SIZE, such as 4GiB for FAT32.")
    ] = None,
    weights: Annotated[bool, typer.Option("--weights/--no-weights", help="Carry the weights too.")] = True,
    caches: Annotated[
        bool, typer.Option("--caches", help="Carry this user's compile caches: code that the far host will run.")
    ] = False,
    sign_key: Annotated[
        Path | None, typer.Option(help="Sign the bundle with this private key.", show_default=False)
    ] = None,
    image: Image = None,
    gpus: Gpus = None,
    platform: Annotated[
        str | None, typer.Option(help="Platform of the far host [default: this one's].", show_default=False)
    ] = None,
    cache: Cache = None,
    verify: Verify = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Put image, weights, lock and signatures into DIR.

    Cut off, the same command goes on: what is finished is neither fetched nor copied again.

    Example:  nimctl bundle create /media/usb/kimi kimi-k2.5 --split 4GiB
    """
    from nimctl.cli import config as configuration
    from nimctl.cli.bundles import packing
    from nimctl.cli.bundles.asked import Asked, size_of
    from nimctl.render import Output

    out = Output.choose(_REPORT, as_json=as_json, quiet=quiet)
    config = configuration.load({"cache": cache, "gpus": gpus, "verify": verify})
    asked = Asked(
        folder.absolute(),
        model,
        image=image,
        lock=lock,
        split=size_of(split),
        weights=weights,
        caches=caches,
        sign_key=sign_key,
        platform=platform,
    )
    packing.create(asked, config, out)


@app.command("verify")
@verb(_REPORT)
def verify(
    folders: Folders,
    key: Key = None,
    verify: Verify = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Read every byte of a bundle, and follow its digests from one to the next.

    Names each file that is damaged, missing or extra. Needs no network and no Docker.

    Example:  nimctl bundle verify /media/usb/kimi --key release.pub
    """
    from nimctl.cli import config as configuration
    from nimctl.cli.bundles import loading
    from nimctl.render import Output

    out = Output.choose(_REPORT, as_json=as_json, quiet=quiet)
    config = configuration.load({"verify": verify})
    loading.verify([folder.absolute() for folder in folders], key, config, out)


@app.command("load")
@verb(_REPORT)
def load(
    folders: Folders,
    cache: Cache = None,
    key: Key = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder for weights that came from a folder and not from an address.", show_default=False),
    ] = None,
    caches: Annotated[
        bool, typer.Option("--caches", help="Load compile caches too, though no --key proves whose code they are.")
    ] = False,
    verify: Verify = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Bring a bundle's image into Docker and its weights into the cache, verified on the way. No network is used.

    Example:  nimctl bundle load /media/usb/kimi && nimctl run --locked
    """
    from nimctl.cli import config as configuration
    from nimctl.cli.bundles import loading
    from nimctl.render import Output

    out = Output.choose(_REPORT, as_json=as_json, quiet=quiet)
    config = configuration.load({"cache": cache, "verify": verify})
    loading.load([folder.absolute() for folder in folders], config, out, key=key, to=to, caches=caches)


@app.command("ls")
@verb(_REPORT)
def ls(
    folders: Folders,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Show what a bundle holds. Reads its list alone.

    Example:  nimctl bundle ls /media/usb/kimi
    """
    from nimctl.cli.bundles import loading
    from nimctl.render import Output

    out = Output.choose(_REPORT, as_json=as_json, quiet=quiet)
    loading.show([folder.absolute() for folder in folders], out)
