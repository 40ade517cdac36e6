"""Docker's API as this project uses it: typed answers, our errors, no model of its own."""

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from nimctl.core.docker_state import docker_error
from nimctl.core.errors import NimctlError
from nimctl.core.facts import DockerFacts
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.platforms import architecture_of, own_platform
from nimctl.core.pull_progress import PullProgress
from nimctl.core.secret import Secret, redact
from nimctl.launch.docker.client import open_client
from nimctl.launch.docker.daemon import describe_daemon
from nimctl.launch.docker.errors import CLASSES, Doing, failure, id_of_sentence, translate
from nimctl.launch.docker.pull import PullPlan, advance, begin

# Seconds. Creating and starting a container can take long on a busy disk; a pull must show some event in its time.
CALL_TIMEOUT = 60.0
PULL_SILENCE = 300.0
_BEAT = 1.0  # between two looks at a pull that says nothing, so that its stall is seen


class Login(Protocol):
    """A registry login."""

    @property
    def username(self) -> str:
        """The user; `$oauthtoken` for NVIDIA's registry."""

    @property
    def password(self) -> Secret:
        """The key."""


@dataclass(frozen=True)
class ImageInfo:
    """An image on this host. `digests` as `repository@sha256:...`; `size` in bytes."""

    id: str
    digests: tuple[str, ...]
    size: int | None
    architecture: str | None
    user: str | None
    labels: Mapping[str, str]
    system: str | None = None

    def digest(self, reference: str) -> str | None:
        """Its digest in the registry of `reference`, of an index or of a manifest; None where it came from nowhere."""
        repository = _familiar(split_reference(reference)[0])
        return next((d.split("@")[1] for d in self.digests if d.split("@")[0] == repository), None)

    def name(self, reference: str) -> str:
        """What identifies it under this name: its registry digest, else its id."""
        return self.digest(reference) or self.id

    def built(self, reference: str) -> ImageIdentity:
        """What is known of it where it was built here and is in no registry.

        containerd's store lists its own digest as if a registry had it.
        """
        known = self.identity(reference)
        own = known.digest if known.digest == self.id else None
        return replace(known, digest=None, manifest=own) if own else known

    def agrees_with(self, reference: str, digests: Collection[str]) -> bool:
        """Whether what the daemon calls it, and one of the digests that it has from that registry, are all `digests`.

        One digest that fits proves nothing of the others: a daemon has seen which of them belong together.
        """
        repository = _familiar(split_reference(reference)[0])
        told = {d.split("@")[1] for d in self.digests if d.split("@")[0] == repository}
        return self.id in digests and (not told or not told.isdisjoint(digests))

    def identity(self, reference: str) -> ImageIdentity:
        """What is known of it here. Whether its digest is that of an index or of a manifest, nobody says.

        Its id is the digest of the configuration, but in containerd's store that of the index or manifest itself:
        https://docs.docker.com/engine/storage/containerd/
        """
        digest = self.digest(reference)
        config = None if any(known.endswith(f"@{self.id}") for known in self.digests) else self.id
        platform = f"{self.system or 'linux'}/{self.architecture or 'unknown'}"
        return ImageIdentity(reference, digest or (None if config else self.id), None, config, platform)


@dataclass(frozen=True)
class Engine:
    """An open connection to a daemon that answered. Every method raises NimctlError only."""

    api: Any
    facts: DockerFacts

    @classmethod
    def connect(cls, timeout: float = 5.0) -> "Engine":
        """The daemon of this user's environment. Raises a `docker-*` error within `timeout` seconds."""
        facts = describe_daemon(timeout, containers=False)
        if error := docker_error(facts):
            raise error
        with _asking("opening a connection to docker"):
            return cls(open_client(CALL_TIMEOUT), facts)

    @property
    def platform(self) -> str:
        """The platform of its containers, as images name it: `linux/amd64`."""
        found = self.facts.architecture
        return f"linux/{architecture_of(found)}" if found else own_platform()

    def close(self) -> None:
        """Hang up."""
        self.api.close()

    def inspect_image_raw(self, reference: str) -> Mapping[str, Any] | None:
        """All that the daemon says of an image; None when it is not here."""
        try:
            with _asking(f"looking for image {reference}"):
                found: Mapping[str, Any] = self.api.inspect_image(reference)
        except NimctlError as error:
            if error.id == "image-not-found":
                return None
            raise
        return found

    def inspect_image(self, reference: str) -> ImageInfo | None:
        """The image on this host, None when it is not here."""
        found = self.inspect_image_raw(reference)
        if found is None:
            return None
        config = found.get("Config") or {}
        return ImageInfo(
            id=str(found["Id"]),
            digests=tuple(found.get("RepoDigests") or ()),
            size=found.get("Size"),
            architecture=found.get("Architecture"),
            user=config.get("User") or None,
            labels=config.get("Labels") or {},
            system=found.get("Os"),
        )

    def layers_here(self) -> list[tuple[str, ...]]:
        """The hashes of the unpacked layers of every image on this host, the lowest first."""
        with _asking("listing images"):
            ids = [str(image["Id"]) for image in self.api.images()]
        found = [self.inspect_image_raw(id_) or {} for id_ in ids]  # some may be gone by now
        return [tuple((one.get("RootFS") or {}).get("Layers") or ()) for one in found]

    def image_digest(self, reference: str) -> str | None:
        """What identifies the image on this host: its registry digest, else its id; None when it is not here."""
        image = self.inspect_image(reference)
        return image.name(reference) if image else None

    def pull(
        self,
        plan: PullPlan,
        login: Login | None = None,
        *,
        attempt: int = 1,
        on_event: Callable[[PullProgress], None] = lambda _: None,
        silence: float = PULL_SILENCE,
    ) -> ImageInfo:
        """Pull exactly this image, see that it is the one, and only then give it the name it was asked for by.

        The manifest of the platform is asked for and not the index above it: the classic store refuses a second
        platform under the digest of one index, and engines of 2025 stumbled over the attestations in indexes.
        One try; `pull_patiently` makes several. Raises `image-not-found`, `key-refused`, `terms-not-accepted`,
        `disk-full`, `image-incompatible`, `image-tampered`, `image-rate-limited`, and `image-pull-failed` for the rest,
        also when nothing is heard for `silence` seconds.
        """
        identity = plan.identity
        repository, _ = split_reference(identity.reference)
        exact = f"{repository}@{identity.manifest or identity.digest}"
        doing = Doing(f"pulling {exact}", "pull")
        progress = begin(plan, attempt)
        for event in self._pull_events(exact, login, doing, silence):
            if error := event.get("error"):
                error_id = id_of_sentence(str(error), doing, otherwise="image-pull-failed")
                raise failure(error_id, f"pulling {exact} failed", str(error))
            progress = advance(progress, event) if event else progress
            on_event(progress)
        return self.named(identity, exact)

    def named(self, identity: ImageIdentity, exact: str) -> ImageInfo:
        """The image that docker calls `exact`, named `identity.reference`, if it is that image.

        Raises `image-tampered` where it is another one, which is not named.
        """
        image = self.inspect_image(exact)
        if image is None or image.id not in identity.digests:
            raise NimctlError(
                "image-tampered",
                f"docker holds another image than {exact}",
                cause=f"its id is {image.id if image else 'none'}, and the registry promised {identity.config}",
                fix="The name was not given to it. Remove it (`docker image rm`), check the daemon's mirrors "
                "(registry-mirrors in daemon.json), and pull again.",
            )
        if "@" not in identity.reference:
            self.tag(image.id, identity.reference)
        return image

    def tag(self, image: str, name: str) -> None:
        """Have `name` stand for the image with this id, whatever it stood for."""
        repository, tag = split_reference(name)
        with _asking(f"naming {image} {name}"):
            self.api.tag(image, repository, tag, force=True)

    def _pull_events(self, reference: str, login: Login | None, doing: Doing, silence: float) -> Iterator[Any]:
        """The events, read by a thread, because docker-py waits for them without any limit of time.

        While none comes, an empty one each _BEAT.
        """
        auth = _auth(login) if login else None
        repository, tag = split_reference(reference)
        events: queue.Queue[Any] = queue.Queue()
        end = object()

        def read() -> None:
            try:
                stream = self.api.pull(repository, tag=tag, stream=True, decode=True, auth_config=auth)
                for event in stream:
                    events.put(event)
                events.put(end)
            except Exception as error:
                events.put(error)

        threading.Thread(target=read, name="pull", daemon=True).start()
        heard = time.monotonic()
        while True:
            try:
                event = events.get(timeout=max(0.0, min(_BEAT, heard + silence - time.monotonic())))
            except queue.Empty:
                if time.monotonic() < heard + silence:
                    yield {}
                    continue
                raise failure(
                    "image-pull-failed", doing.what + " stalled", f"nothing was heard for {silence:g} s"
                ) from None
            heard = time.monotonic()
            if event is end:
                return
            if isinstance(event, Exception):
                raise translate(event, doing, self.facts.endpoint) from event
            yield event

    def create(self, name: str | None, body: Mapping[str, Any]) -> str:
        """Create a container from a request body and return its id."""
        with _asking(f"creating the container of {body['Image']}"):
            return str(self.api.create_container_from_config(dict(body), name)["Id"])

    def start(self, container: str) -> None:
        """Start a created container."""
        with _asking("starting the container"):
            self.api.start(container)

    def inspect(self, container: str) -> Mapping[str, Any] | None:
        """Everything about a container by id or name; None when there is none."""
        with _asking(f"looking at container {container}"):
            try:
                found: Mapping[str, Any] = self.api.inspect_container(container)
            except Exception as error:
                if not _absent(error):
                    raise
                return None
            return found

    def list_labelled(self, label: str) -> list[Mapping[str, Any]]:
        """Summaries of all containers that carry `label`, running or not."""
        with _asking("listing containers"):
            return list(self.api.containers(all=True, filters={"label": label}))

    def logs(
        self, container: str, *, tail: int | None = None, follow: bool = False, only_stdout: bool = False
    ) -> Iterator[str]:
        """The log of a container by lines, keys masked."""
        rest = b""
        with _asking("reading the log"):
            chunks = self.api.logs(
                container, stream=True, follow=follow, stderr=not only_stdout, tail="all" if tail is None else tail
            )
            try:
                for chunk in chunks:
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield from (_text(line) for line in lines)
            finally:
                chunks._response.close()  # its own close() leaves the socket to the collector, and fails over ssh
        if rest:
            yield _text(rest)

    def stop(self, container: str, timeout: int) -> None:
        """SIGTERM, then SIGKILL after `timeout` seconds. A container that is gone or dead is fine."""
        with _asking("stopping the container"), _absent_is_fine():
            self.api.stop(container, timeout=timeout)

    def remove(self, container: str) -> None:
        """Remove a container, killing what still runs in it. One that is gone already is fine."""
        with _asking("removing the container"), _absent_is_fine():
            self.api.remove_container(container, force=True, v=True)

    def wait(self, container: str, timeout: float) -> int | None:
        """The exit code of a container, None when it does not end within `timeout` seconds."""
        try:
            with _asking("waiting for the container"):
                return int(self.api.wait(container, timeout=timeout)["StatusCode"])
        except NimctlError as error:
            if error.id != "docker-hangs":
                raise
            return None


def _auth(login: Login) -> dict[str, str]:
    """A login as docker's API takes it; under the user `<token>` stores keep an identity token."""
    if login.username == "<token>":
        return {"identitytoken": login.password.reveal()}
    return {"username": login.username, "password": login.password.reveal()}


def _familiar(repository: str) -> str:
    """A repository of Docker Hub as docker shows it: `ubuntu` for `docker.io/library/ubuntu`."""
    return repository.removeprefix("docker.io/").removeprefix("library/") if "docker.io/" in repository else repository


def split_reference(reference: str) -> tuple[str, str | None]:
    """`registry:5000/a/b:tag` as repository and tag, `repository@sha256:...` as repository and digest.

    Without either the tag is `latest`, as docker reads it.
    """
    if "@" in reference:
        repository, digest = reference.split("@", 1)
        return repository.rsplit(":", 1)[0] if ":" in repository.rsplit("/", 1)[-1] else repository, digest
    name = reference.rsplit("/", 1)[-1]
    if ":" in name:
        repository, tag = reference.rsplit(":", 1)
        return repository, tag
    return reference, "latest"


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Translate what docker-py and its HTTP client throw; a class nobody knows is a bug and passes through."""
    try:
        yield
    except NimctlError:
        raise
    except Exception as error:
        if not any(c.__name__ in CLASSES for c in type(error).__mro__):
            raise
        raise translate(error, Doing(what)) from error


@contextmanager
def _absent_is_fine() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _absent(error) and "is already in progress" not in str(error):
            raise


def _absent(error: Exception) -> bool:
    return type(error).__name__ == "NotFound"


def _text(line: bytes) -> str:
    return redact(line.decode(errors="replace").rstrip("\r"))
