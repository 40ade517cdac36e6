"""Getting the image of a target onto this host: already here, pulled, or built, always said which."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from nimctl.core.errors import NimctlError

if TYPE_CHECKING:  # these rooms cost start-up time; the verbs import them when they need them
    from nimctl.cli.target import ImageChoice
    from nimctl.launch.docker import Engine
    from nimctl.render import Output


def ensure_image(choice: ImageChoice, device: Literal["cuda", "cpu"], engine: Engine, out: Output) -> str:
    """The image's id or digest on this host after pulling or building it if it was missing."""
    present = engine.image_digest(choice.reference)
    if present:
        out.text(f"image {choice.reference} is on this host ({_short(present)})")
        return present
    if choice.how == "build":
        out.text(f"image {choice.reference} is not on this host: {choice.origin}")
        return build_image(device, choice.reference, engine, out)
    return pull_image(choice.reference, engine, out)


def pull_image(reference: str, engine: Engine, out: Output) -> str:
    """Resolve the reference to a digest once, pull exactly that, and return the digest.

    With the stored login, else for NVIDIA's registry with the key of the environment.
    """
    from nimctl.registry.credentials import config_folder, stored_or_key
    from nimctl.registry.entitlement import resolve_digest
    from nimctl.registry.reference import parse

    wanted = parse(reference)
    login, from_key = stored_or_key(wanted.registry, config_folder(), os.environ)
    if from_key:
        out.text(f"no login is stored for {wanted.registry}: pulling with the NGC key of the environment")
    with out.working(f"asking {wanted.registry} for {wanted}"):
        digest = resolve_digest(wanted, login)
    with out.transfer(f"pulling {reference} ({_short(digest)})") as view:
        engine.pull(reference, digest, login, on_event=lambda e: view.update(e.done, e.total, e.detail))
    out.text(f"pulled {reference} at {digest}")
    return digest


def build_image(device: Literal["cuda", "cpu"], tag: str, engine: Engine, out: Output) -> str:
    """Build our image for `device` through BuildKit and return its id."""
    from nimctl import images

    with out.transfer(f"building {tag}") as view:
        images.build(device, env=os.environ, tag=tag, on_line=view.line)
    built = engine.image_digest(tag)
    if built is None:
        raise NimctlError(
            "image-build-failed",
            f"{tag} was built, but the Docker Engine does not have it",
            cause="the builder kept the result to itself",
            fix="Use the default builder: `docker buildx use default`.",
        )
    out.text(f"built {tag} ({_short(built)})")
    return built


def _short(digest: str) -> str:
    return digest.rsplit(":", maxsplit=1)[-1][:12]
