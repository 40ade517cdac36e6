"""Where in the cache the weights of an address lie, also of one that NIM_REPOSITORY_OVERRIDE redirects."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from nimctl.core.cache import Part
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import from_environment, open_source
from nimctl.core.fetch.sources import hub, ngc, override
from nimctl.core.fetch.upkeep import inventory


def places_of(uri: str, root: Path) -> dict[tuple[Part, str], str]:
    """The repositories (part, name in the inventory) of weights from `uri`, each with the revision that is named there.

    Two with NIM_REPOSITORY_OVERRIDE: what comes from the mirror, and what came from the source itself before there was
    one. None for a folder, which is served where it lies. Raises as `open_source` does.
    """
    access = from_environment(os.environ)
    mirror = override.apply(uri, access.override)
    places: dict[tuple[Part, str], str] = {}
    for address in (mirror, uri):
        try:
            source = open_source(address, root, access=replace(access, override=None))
        except NimctlError:
            if address == mirror:
                raise
            continue  # the mirror may have what the source could not name
        if source.in_place is None:
            places[source.part, inventory.listed_name(source.repo)] = named_revision(address)
    return places


def named_revision(uri: str) -> str:
    """The revision that an address names; empty where it names none, or where addresses of its kind cannot."""
    if not uri.startswith((hub.SCHEME, ngc.SCHEME)):
        return ""
    return "".join(re.split("[:@]", uri.partition("://")[2].partition("?")[0], maxsplit=1)[1:])
