"""The settings of the part of us that runs inside the engine: the container puts them into the engine's environment."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from entrypoint.settings.variables import VARIABLES

# The engine's own name; what it refuses with an error of its own must be refused before, by the picture's header.
PIXELS = "VLLM_MAX_IMAGE_PIXELS"
# 8192 x 8192: more than any camera that is not a stitched panorama, a fifth of a gigabyte once decoded.
MOST_PIXELS = 2**26
# Our entry in the engine's registry of media connectors: entrypoint.api.connector.
CONNECTOR = "nimctl"


class RequestLimits(NamedTuple):
    """What a request may hold; `max_pixels` are those of one image."""

    max_images: int
    max_body_mib: int
    allowed_media_domains: tuple[str, ...]
    max_pixels: int


def request_limits(environ: Mapping[str, str] = os.environ) -> RequestLimits:
    """The limits in this process's environment. Raises `config-invalid`, where the container has not checked them."""
    pixels = environ.get(PIXELS, "")
    return RequestLimits(
        _from(environ, "max_images"),
        _from(environ, "max_body_mib"),
        _from(environ, "allowed_media_domains"),
        int(pixels) if pixels.isdecimal() and int(pixels) else MOST_PIXELS,
    )


def _from(environ: Mapping[str, str], field: str) -> Any:
    variable = next(v for v in VARIABLES if v.field == field)
    return variable.value(environ.get(variable.name) or str(variable.default))
