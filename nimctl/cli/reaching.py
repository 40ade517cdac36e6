"""Which hosts a model needs from here, and what its registry says to the key: what the doctor asks for a verb."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit

from nimctl.cli.config import Config
from nimctl.cli.target import ImageChoice, Target, device_for, image_for
from nimctl.core import keys
from nimctl.core.bounded import within
from nimctl.core.errors import NimctlError
from nimctl.core.facts import ImageAccess
from nimctl.core.platforms import own_platform
from nimctl.core.secret import redact
from nimctl.doctor.observe.credentials import kind_of
from nimctl.doctor.observe.reach import Destination, is_offline
from nimctl.registry.reference import DOCKER_HUB, Reference, is_loopback, parse

NVIDIA = "nvcr.io"
# Where the layers of an image lie, beside its registry. NVIDIA's, which gives its tokens itself, redirects there, and
# none of its pages names the host. Docker's: https://docs.docker.com/desktop/setup/allow-list/
_LAYERS = {NVIDIA: "https://layers.nvcr.io", DOCKER_HUB: "https://production.cloudflare.docker.com"}
# Where files of the Hub lie: https://huggingface.co/docs/hub/models-downloading#downloading-behind-a-proxy-or-firewall
_HUB_FILES = "https://us.aws.cdn.hf.co"
# What NVIDIA's containers ask: https://docs.nvidia.com/nim/large-language-models/latest/deploy-behind-proxy.html
_NGC_FILES = "https://xfiles.ngc.nvidia.com"
_PRESENT_WITHIN = 0.4  # seconds for the look whether the image is here; a daemon that is slower is not waited for
_COMPLETE_WITHIN = 1.0  # seconds for the look into the cache, which may lie on a mount that is dead


def destinations(target: Target, config: Config, environment: Mapping[str, str]) -> tuple[Destination, ...]:
    """The hosts that a run of `target` would ask, each once, in the order of their use.

    None for what is built or lies here; no source of weights that the cache holds whole; none at all where the network
    must not be used. Asks nobody, and takes a second at most.
    """
    if is_offline(environment):
        return ()
    found = [*_of_image(target, config), *_of_weights(target, config, environment)]
    return tuple({destination.url: destination for destination in reversed(found)}.values())[::-1]


def image_access(
    target: Target, config: Config, environment: Mapping[str, str]
) -> Callable[[float], ImageAccess | None] | None:
    """Asks the registry for the image's manifest, within the seconds given, with the login that a pull would use.

    None when no registry would be asked; the answer is None when the image is on this host already. The callable
    raises TimeoutError when the registry does not answer in time.
    """
    if is_offline(environment) or not any(choice.how == "pull" for choice in _images(target, config)):
        return None

    def ask(seconds: float) -> ImageAccess | None:
        choice = image_for(target, device_for(config, target.recipe), config)
        if choice.how != "pull" or _is_here(choice.reference, min(seconds, _PRESENT_WITHIN)):
            return None
        return within(seconds, lambda: _asked(choice.reference, environment), f"no answer about {choice.reference}")

    return ask


def _asked(text: str, environment: Mapping[str, str]) -> ImageAccess:
    from nimctl.registry import credentials, entitlement

    shown = "none"
    try:
        wanted = parse(text)
        login, from_key = credentials.stored_or_key(wanted.registry, credentials.config_folder(), environment)
    except NimctlError as error:
        return _refused(text, shown, error)
    if login is not None:
        shown = keys.NGC if from_key else "docker-login"
    found = entitlement.probe(wanted, login, own_platform())
    return _refused(text, shown, found.error) if found.error else ImageAccess(text, shown, digest=found.digest)


def _refused(text: str, shown: str, error: NimctlError) -> ImageAccess:
    return ImageAccess(
        text,
        shown,
        id=error.id,
        message=redact(error.message),
        cause=redact(error.cause),
        fix=redact(error.fix),
        evidence=tuple(redact(line) for line in error.evidence),
    )


def _images(target: Target, config: Config) -> list[ImageChoice]:
    """The images that may serve the target: which one it is depends on the GPUs where the recipe runs on both."""
    if config.text("runtime") != "docker":
        return []
    asked = config.text("gpus")
    devices: list[Literal["cuda", "cpu"]] = ["cpu"] if asked == "none" else ["cuda"]
    if asked is None and target.recipe.cpu:
        devices = ["cuda", "cpu"]
    return [image_for(target, device, config) for device in devices]


def _of_image(target: Target, config: Config) -> Iterator[Destination]:
    for choice in _images(target, config):
        if choice.how != "pull":
            continue
        with suppress(NimctlError):  # no reference at all: the pull will say so
            yield from _of_registry(parse(choice.reference))


def _of_registry(reference: Reference) -> Iterator[Destination]:
    host = "registry-1.docker.io" if reference.registry == DOCKER_HUB else reference.registry
    # Plain http is spoken to this machine itself only, and which of both it speaks is found by asking.
    if not is_loopback(host):
        yield Destination(f"https://{host}/v2/", "image")
    if reference.registry == DOCKER_HUB:
        yield Destination("https://auth.docker.io", "image")
    if reference.registry in _LAYERS:
        yield Destination(_LAYERS[reference.registry], "image layers")


def _of_weights(target: Target, config: Config, environment: Mapping[str, str]) -> Iterator[Destination]:
    if target.recipe.runs == "nim":
        yield from _of_container(target, environment)
        return
    if target.folder is not None or "://" not in target.recipe.weights:
        return
    if target.recipe.weights.startswith(("builtin://", "file://")) or _complete(target, config, environment):
        return
    with suppress(NimctlError):  # a setting that is wrong: the download will say which
        yield from _of_source(target.recipe.weights, environment)


def _of_container(target: Target, environment: Mapping[str, str]) -> Iterator[Destination]:
    """What the downloader in NVIDIA's image may ask when it starts; its profile says which of these."""
    if environment.get("NIM_REPOSITORY_OVERRIDE", "").strip() or target.recipe.key != keys.NGC:
        return
    for host in ("api.ngc.nvidia.com", "authn.nvidia.com", "xfiles.ngc.nvidia.com"):
        yield Destination(f"https://{host}", "weights of the container")


def _complete(target: Target, config: Config, environment: Mapping[str, str]) -> bool:
    """Whether the cache alone suffices to start."""
    from nimctl.core.fetch import from_environment, open_source

    def look() -> bool:
        try:
            access = replace(from_environment(environment), offline=True)
            open_source(target.recipe.weights, config.cache, access=access).resolve()
        except NimctlError:
            return False
        return True

    try:
        return within(_COMPLETE_WITHIN, look, "the cache does not answer")
    except TimeoutError:
        return False


def _of_source(uri: str, environment: Mapping[str, str]) -> Iterator[Destination]:
    """The hosts of a source, or of the mirror in its place. Raises `config-invalid`."""
    from nimctl.core.fetch import from_environment
    from nimctl.core.fetch.access import HUB_ENDPOINT, NGC_ENDPOINT
    from nimctl.core.fetch.sources import override

    access = from_environment(environment)
    address = override.apply(uri, access.override)
    scheme = address.partition("://")[0]
    if scheme == "hf":
        yield Destination(access.hf_endpoint, "weights")
        if access.hf_endpoint == HUB_ENDPOINT:
            yield Destination(_HUB_FILES, "weights files")
    elif scheme == "ngc":
        yield Destination(access.ngc_endpoint, "weights")
        if access.ngc_key is not None and kind_of(access.ngc_key.reveal()) != "personal":
            yield Destination(access.ngc_auth_endpoint, "weights key")
        if access.ngc_endpoint == NGC_ENDPOINT:
            yield Destination(_NGC_FILES, "weights files")
    elif scheme in ("http", "https"):
        yield Destination(f"{scheme}://{urlsplit(address).netloc.rpartition('@')[2]}", "weights")
    elif scheme in ("s3", "gs"):
        yield Destination(_store(address, environment), "weights")


def _store(address: str, environment: Mapping[str, str]) -> str:
    """The endpoint of a bucket. Raises `config-invalid`."""
    from nimctl.core.fetch import from_environment
    from nimctl.core.fetch.sources import objectstore_settings

    scheme: Literal["s3", "gs"] = "s3" if address.startswith("s3://") else "gs"
    settings = objectstore_settings.read(scheme, from_environment(environment).object_store)
    if settings.endpoint:
        return settings.endpoint
    if scheme == "gs":
        return "https://storage.googleapis.com"
    region = settings.options.get("region", "us-east-1")
    bucket = urlsplit(address).netloc
    # A name with dots does not match Amazon's certificate, so the library puts such a bucket into the path.
    return f"https://s3.{region}.amazonaws.com" if "." in bucket else f"https://{bucket}.s3.{region}.amazonaws.com"


def _is_here(reference: str, seconds: float) -> bool:
    from nimctl.launch.docker import look_at_image

    try:
        return within(seconds, lambda: look_at_image(reference, seconds).present is True, "Docker does not answer")
    except TimeoutError:
        return False
