"""The image of a run, as far as it is on this host."""

from nimctl.core.facts import DockerFacts, ImageFacts
from nimctl.launch.docker.client import open_client
from nimctl.launch.docker.engine import Engine


def look_at_image(reference: str, timeout: float = 3.0) -> ImageFacts:
    """Whether the image is here, and which; `present` is None where the daemon cannot be asked. Never raises."""
    try:
        engine = Engine(open_client(timeout), DockerFacts("ok"))
        try:
            found = engine.inspect_image(reference)
        finally:
            engine.close()
    except Exception:  # whatever docker-py raises: the look at the daemon says what is wrong with it
        return ImageFacts(reference)
    if found is None:
        return ImageFacts(reference, present=False)
    return ImageFacts(reference, True, found.name(reference), found.architecture).described(found.labels)
