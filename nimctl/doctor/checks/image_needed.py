"""Whether a run would have to pull its image, as far as the facts know. Pure."""

from nimctl.core.facts import HostFacts
from nimctl.doctor.model import Needs


def image_reference(facts: HostFacts, needs: Needs) -> str | None:
    """The image that a run would use, where it is known."""
    if facts.image is not None:
        return facts.image.reference
    return needs.recipe.image if needs.recipe else None


def image_here(facts: HostFacts) -> bool:
    """Whether the image is known to be on this host, so that nobody has to be asked for it."""
    return facts.image is not None and facts.image.present is True


def image_missing(facts: HostFacts) -> bool:
    """Whether the image is known to be missing, so that it has to be pulled."""
    return facts.image is not None and facts.image.present is False
