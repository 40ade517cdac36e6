"""Where a build reads from: the recipe, and the packages that go into the image."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nimctl.core.command import run
from nimctl.core.errors import NimctlError


@dataclass(frozen=True)
class Source:
    """Where a build reads from: the folder that holds both packages, and the folder of the images' recipe."""

    root: Path
    recipe: Path


def find_source() -> Source:
    """The running packages and the recipe; raises `image-build-failed` where the recipe was not installed.

    In a checkout `nimctl/images/recipe` is a link to `images/`; a wheel carries its files in that place.
    """
    here = Path(__file__).resolve().parent
    root, recipe = here.parent.parent, (here / "recipe").resolve()
    if (recipe / "docker-bake.hcl").is_file() and (root / "entrypoint").is_dir():
        return Source(root, recipe)
    raise NimctlError(
        "image-build-failed",
        "the files that describe the images were not found",
        cause=f"this installation of nimctl has no {recipe / 'docker-bake.hcl'}, or no entrypoint package beside it",
        fix="install nimctl from its wheel or with `pip install .` in a checkout, or name an image with --image",
    )


def revision(root: Path) -> str:
    """The commit of a checkout, marked where files differ from it; `unknown` for an installed package."""
    found = run(["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"])
    return found.stdout.strip() if found.ok and (root / ".git").exists() else "unknown"


def commit_time(root: Path) -> int | None:
    """When the commit of a checkout was made, in seconds since 1970; None for an installed package."""
    found = run(["git", "-C", str(root), "log", "-1", "--format=%ct"])
    text = found.stdout.strip()
    return int(text) if found.ok and text.isdigit() and (root / ".git").exists() else None


def origin(root: Path) -> str | None:
    """Where the checkout's source lives, as a web address without user or password; None where none is known."""
    found = run(["git", "-C", str(root), "remote", "get-url", "origin"])
    if not (found.ok and (root / ".git").exists()):
        return None
    address = urlsplit(found.stdout.strip())
    if address.scheme not in ("http", "https") or not address.hostname:
        return None
    port = f":{address.port}" if address.port else ""
    return f"{address.scheme}://{address.hostname}{port}{address.path.removesuffix('.git')}"
