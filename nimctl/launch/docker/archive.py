"""Images as archives: out of the engine as `docker save` writes them, into it as `docker load` reads them. Streamed."""

from collections.abc import Iterable, Iterator
from contextlib import closing

from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import ImageIdentity
from nimctl.launch.docker.client import open_client
from nimctl.launch.docker.engine import Engine, ImageInfo
from nimctl.launch.docker.errors import Doing, failure, id_of_sentence, translate

# Seconds without a byte: before the first one, the classic store writes the whole archive to a folder of its own.
_SILENCE = 1800.0
_BLOCK = 2**20


def save(image: str) -> Iterator[bytes]:
    """The archive of the image with this id, as it comes. Raises `docker-*`, `image-not-found`, `disk-full`."""
    doing = Doing(f"saving {image}")
    try:
        with closing(open_client(_SILENCE)) as api:
            yield from api.get_image(image, chunk_size=_BLOCK)
    except Exception as error:
        if isinstance(error, NimctlError):
            raise
        raise translate(error, doing) from error


def load(engine: Engine, archive: Iterable[bytes], identity: ImageIdentity) -> ImageInfo:
    """Bring the archive into the engine; the image, which is exactly `identity`.

    An error that `archive` raises ends the stream before the engine names anything, and passes through. Raises
    `image-tampered` where the engine has another image afterwards, `disk-full`, `docker-*`, `image-pull-failed`.
    """
    doing = Doing(f"loading {identity.reference}")
    try:
        with closing(open_client(_SILENCE)) as api:
            for event in api.load_image(iter(archive)):
                if problem := event.get("error"):
                    id_ = id_of_sentence(str(problem), doing, otherwise="image-pull-failed")
                    raise failure(id_, f"{doing.what} failed", str(problem))
    except Exception as error:
        if isinstance(error, NimctlError):
            raise
        raise translate(error, doing) from error
    found = find(engine, identity)
    if found is None:
        raise NimctlError(
            "image-tampered",
            f"the engine does not have {identity.reference} after loading it",
            cause=f"none of {', '.join(identity.digests)} is known to it",
            fix="Verify the bundle (`nimctl bundle verify`), then load it again.",
        )
    return found


def find(engine: Engine, identity: ImageIdentity) -> ImageInfo | None:
    """The image with exactly this identity, whatever it is called here; None where it is not here."""
    for digest in (identity.config, identity.manifest, identity.digest):
        if digest and (found := engine.inspect_image(digest)) and found.id in identity.digests:
            return found
    return None
