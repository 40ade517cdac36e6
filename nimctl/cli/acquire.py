"""Getting the image of a target onto this host: already here, pulled, or built, always said which."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import ImageIdentity

if TYPE_CHECKING:  # these rooms cost start-up time; the verbs import them when they need them
    from nimctl.cli.config import Config
    from nimctl.cli.proof import Proof
    from nimctl.cli.target import ImageChoice
    from nimctl.launch.docker import Engine
    from nimctl.registry.login import Login
    from nimctl.render import Output


@dataclass(frozen=True)
class Held:
    """An image that is on this host: what it is, and the `id` by which the daemon knows it and no other."""

    identity: ImageIdentity
    id: str
    proof: Proof | None = None  # whether somebody trusted has signed it

    @property
    def digest(self) -> str:
        """What it is called in documents: its digest in the registry, else its id."""
        return self.identity.digest or self.id


def ensure_image(
    choice: ImageChoice, device: Literal["cuda", "cpu"], engine: Engine, out: Output, config: Config
) -> Held:
    """The image on this host, after pulling or building it if it was missing."""
    present = engine.inspect_image(choice.reference)
    if present:
        out.text(f"image {choice.reference} is on this host ({_short(present.name(choice.reference))})")
        identity = present.identity(choice.reference)
        return Held(identity, present.id, _proof_of_present(identity, choice, config, out))
    if choice.how == "build":
        out.text(f"image {choice.reference} is not on this host: {choice.origin}")
        return build_image(device, choice.reference, engine, out)
    return pull_image(choice.reference, engine, out, config)


def pull_image(reference: str, engine: Engine, out: Output, config: Config) -> Held:
    """Resolve the reference to one image, once, and pull exactly that.

    With the stored login, else for NVIDIA's registry with the key of the environment.
    """
    from nimctl.cli.proving import prove_image
    from nimctl.registry.credentials import config_folder, stored_or_key
    from nimctl.registry.reference import parse
    from nimctl.registry.resolving import resolve_image

    wanted = parse(reference)
    login, from_key = stored_or_key(wanted.registry, config_folder(), os.environ)
    if from_key:
        out.text(f"no login is stored for {wanted.registry}: pulling with the NGC key of the environment")
    with out.working(f"asking {wanted.registry} for {wanted}"):
        remote = resolve_image(wanted, login, engine.platform, name=reference)
    documents = [document for document in (remote.index, remote.manifest) if document is not None]
    proof = prove_image(remote.identity, login, config, out, documents=documents)
    with out.transfer(f"pulling {reference} ({_short(str(remote.identity.digest))})") as view:
        image = engine.pull(remote.identity, login, on_event=lambda e: view.update(e.done, e.total, e.detail))
    out.text(f"pulled {reference} at {remote.identity.digest}")
    return Held(remote.identity, image.id, proof)


def _proof_of_present(identity: ImageIdentity, choice: ImageChoice, config: Config, out: Output) -> Proof:
    from nimctl.cli.proving import prove_image
    from nimctl.registry.credentials import config_folder, stored_or_key
    from nimctl.registry.reference import parse

    def login() -> Login | None:
        return stored_or_key(parse(choice.reference).registry, config_folder(), os.environ)[0]

    return prove_image(identity, login, config, out, built=choice.how == "build", fresh=False)


def build_image(device: Literal["cuda", "cpu"], tag: str, engine: Engine, out: Output) -> Held:
    """Build our image for `device` through BuildKit."""
    from nimctl import images

    with out.transfer(f"building {tag}") as view:
        images.build(device, env=os.environ, tag=tag, on_line=view.line)
    built = engine.inspect_image(tag)
    if built is None:
        raise NimctlError(
            "image-build-failed",
            f"{tag} was built, but the Docker Engine does not have it",
            cause="the builder kept the result to itself",
            fix="Use the default builder: `docker buildx use default`.",
        )
    out.text(f"built {tag} ({_short(built.id)})")
    return Held(built.identity(tag), built.id)


def _short(digest: str) -> str:
    return digest.rsplit(":", maxsplit=1)[-1][:12]
