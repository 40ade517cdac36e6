"""Getting the image of a target onto this host: already here, pulled, or built, always said which."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import ImageIdentity

if TYPE_CHECKING:  # these rooms cost start-up time; the verbs import them when they need them
    from nimctl.cli.config import Config
    from nimctl.cli.proofs.proof import Proof
    from nimctl.cli.target import ImageChoice
    from nimctl.launch.docker import Engine, ImageInfo
    from nimctl.registry.login import Login
    from nimctl.registry.resolving import RemoteImage
    from nimctl.render import Output

# Seconds for the question whether a tag has moved, where the image is here already and could start without an answer.
_ASKED_WITHIN = 3.0


@dataclass(frozen=True)
class Held:
    """An image that is on this host: what it is, and the `id` by which the daemon knows it and no other."""

    identity: ImageIdentity
    id: str
    proof: Proof | None = None  # whether somebody trusted has signed it
    was: str | None = None  # the manifest that the tag stood for on this host, where a pull changed it

    @property
    def digest(self) -> str:
        """What it is called in documents: its digest in the registry, else its id."""
        return self.identity.digest or self.id


def ensure_image(
    choice: ImageChoice,
    device: Literal["cuda", "cpu"],
    engine: Engine,
    out: Output,
    config: Config,
    *,
    admit: Callable[[Mapping[str, str]], None] = lambda labels: None,
) -> Held:
    """The image on this host, after pulling or building it if it was missing.

    One that is here is kept, and said so where its tag stands for another one by now. `admit` is given the labels of
    one that is to be pulled, and raises for what must not be.
    """
    present = engine.inspect_image(choice.id or choice.reference)
    if present:
        out.text(f"image {choice.reference} is on this host ({_short(present.name(choice.reference))})")
        identity = _known(choice, present, engine, out)
        built = choice.how == "build" and _is_ours(present, device, engine)
        return Held(identity, present.id, _proof_of_present(identity, config, out, built=built))
    if choice.how == "build":
        out.text(f"image {choice.reference} is not on this host: {choice.origin}")
        return build_image(device, choice.reference, engine, out)
    called = choice.identity.reference if choice.identity else None
    return pull_image(choice.reference, engine, out, config, admit=admit, called=called)


def is_only_here(reference: str, engine: Engine) -> bool:
    """Whether the image is on this host and was never in a registry that could be asked for it."""
    from nimctl.core.image_names import TARGETS, local_tag

    present = engine.inspect_image(reference)
    # containerd's store lists each image's own digest as if a registry had it: there our builds are told by their names
    return present is not None and (not present.digests or reference in map(local_tag, TARGETS))


def pull_image(
    reference: str,
    engine: Engine,
    out: Output,
    config: Config,
    *,
    admit: Callable[[Mapping[str, str]], None] = lambda labels: None,
    called: str | None = None,
) -> Held:
    """Resolve the reference to one image, once, and pull exactly that, unless it is here.

    With the stored login, else for NVIDIA's registry with the key of the environment. A tag that stands for another
    image than the one of that name here takes the new one, and says so. One that is asked for by digest is named
    `called` (else as the reference without it) where no other image is.
    """
    from nimctl.cli.proofs.images import prove_image
    from nimctl.launch.docker.archive import find
    from nimctl.registry.reference import parse

    wanted = parse(reference)
    login, from_key = _login(wanted.registry)
    if from_key:
        out.text(f"no login is stored for {wanted.registry}: pulling with the NGC key of the environment")
    with out.working(f"asking {wanted.registry} for {wanted}"):
        remote = _asked(reference, login, engine)
    admit(remote.labels)
    documents = [document for document in (remote.index, remote.manifest) if document is not None]
    present = engine.inspect_image(reference)
    was = present.name(reference) if present and present.id not in remote.identity.digests else None
    if was:
        out.text(f"digest-changed: {reference} was {was}, now {remote.identity.manifest}", style="yellow")
    proof = prove_image(remote.identity, login, config, out, documents=documents)
    here = find(engine, remote.identity)
    if here is not None:
        engine.named(remote.identity, here.id)
        _named(remote.identity, here.id, called, engine, out)
        out.text(f"image {reference} is on this host, as its registry has it now ({_short(remote.identity.digest)})")
        return Held(remote.identity, here.id, proof, was)
    image = _fetched(remote, login, engine, out)
    out.text(f"pulled {reference} at {remote.identity.digest}")
    _named(remote.identity, image.id, called, engine, out)
    return Held(remote.identity, image.id, proof, was)


def _named(identity: ImageIdentity, id_: str, called: str | None, engine: Engine, out: Output) -> None:
    """Give an image that came by its digest a name: `docker image prune` takes what has none.

    A name that stands for another image here stays with that one.
    """
    from nimctl.launch.docker.engine import split_reference

    there = engine.inspect_image_raw(id_)
    if "@" not in identity.reference or (there and there.get("RepoTags")):
        return
    wanted = (called or identity.reference).partition("@")[0]
    repository, tag = split_reference(wanted)
    says_tag = called is not None or ":" in wanted.rpartition("/")[2]
    if not says_tag or engine.inspect_image(f"{repository}:{tag}") is not None:
        tag = f"locked-{_short(identity.digest)}"
    engine.tag(id_, f"{repository}:{tag}")
    out.text(f"named it {repository}:{tag}, so that `docker image prune` leaves it")


def _fetched(remote: RemoteImage, login: Login | None, engine: Engine, out: Output) -> ImageInfo:
    from nimctl.cli.image_room import require_room
    from nimctl.launch.docker.pull import PullPlan
    from nimctl.launch.docker.pulling import pull_patiently
    from nimctl.render import size

    layers = tuple((layer.digest, layer.size) for layer in remote.layers)
    plan = PullPlan(remote.identity, layers, remote.diff_ids)
    require_room(plan, engine, out)
    what = (
        f"{remote.identity.reference} ({_short(remote.identity.digest)}, {size(remote.size)} in {_count(len(layers))})"
    )
    with out.pull(f"pulling {what}") as view:
        return pull_patiently(
            engine,
            plan,
            login,
            on_event=view.update,
            on_retry=lambda error, seconds: view.note(
                f"[{error.id}] {error.cause}; trying again in {seconds:.0f} s, what is here is kept"
            ),
        )


def _known(choice: ImageChoice, present: ImageInfo, engine: Engine, out: Output) -> ImageIdentity:
    """What the image that is here is, by what engine and registry say: the digests of a lock are claims.

    Its registry is asked for a moment whether its tag still stands for it.
    """
    from nimctl.core.bounded import within
    from nimctl.doctor.observe.reach import is_offline
    from nimctl.registry.reference import parse

    reference, own = choice.reference, present.identity(choice.reference)
    if choice.identity or choice.how == "build" or "@" in reference or is_offline(os.environ):
        return own
    try:
        login, _ = _login(parse(reference).registry)
        late = "it did not answer"
        remote = within(_ASKED_WITHIN, lambda: _asked(reference, login, engine), late)
    except (NimctlError, TimeoutError) as error:
        cause = error.cause if isinstance(error, NimctlError) else str(error)
        out.text(f"whether {reference} is still what its registry has is not known: {cause}", style="dim")
        return own
    if present.id in remote.identity.digests:
        return remote.identity
    out.text(
        f"digest-changed: {reference} was {present.name(reference)}, now {remote.identity.manifest}; the one here is "
        f"kept, `nimctl pull {reference}` takes the new one",
        style="yellow",
    )
    return own


def _asked(reference: str, login: Login | None, engine: Engine) -> RemoteImage:
    from nimctl.registry.reference import parse
    from nimctl.registry.resolving import resolve_image

    return resolve_image(parse(reference), login, engine.platform, name=reference)


def _login(registry: str) -> tuple[Login | None, bool]:
    from nimctl.registry.credentials import config_folder, stored_or_key

    return stored_or_key(registry, config_folder(), os.environ)


def _is_ours(present: ImageInfo, device: Literal["cuda", "cpu"], engine: Engine) -> bool:
    """Whether it was built on this host: the engine knows it by the name that `build` gives, and from no registry.

    That a lock knows no digest of it says nothing.
    """
    from nimctl.core.image_names import local_tag

    tag = local_tag(device)
    named = engine.inspect_image(tag)
    # containerd's store calls what was never pushed by its own digest
    return named is not None and named.id == present.id and named.digest(tag) in (None, named.id)


def _proof_of_present(identity: ImageIdentity, config: Config, out: Output, *, built: bool) -> Proof:
    from nimctl.cli.proofs.images import prove_image
    from nimctl.registry.reference import parse

    def login() -> Login | None:
        return _login(parse(identity.reference).registry)[0]

    return prove_image(identity, login, config, out, built=built, fresh=False)


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


def _count(layers: int) -> str:
    return f"{layers} layer{'' if layers == 1 else 's'}"


def _short(digest: str | None) -> str:
    return (digest or "").rsplit(":", maxsplit=1)[-1][:12]
