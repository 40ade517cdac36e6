"""The parts of a lock from what was decided and found. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.layout import Layout
from nimctl.core.memory.ranks import Parallel
from nimctl.core.plain import to_plain
from nimctl.core.planning.model import of_checkpoint
from nimctl.core.planning.profile import identity_of, profile_of
from nimctl.core.recipes import Recipe
from nimctl.core.secret import Secret, holds_secret, is_secret_name
from nimctl.lock.comparing import same_image
from nimctl.lock.model import (
    LockedImage,
    LockedLayout,
    LockedOption,
    LockedRecipe,
    LockedWeights,
    sha256_of,
)

# What an image says of itself that matters for a start; all else (links, titles) may change without a change of it.
_LABELS = re.compile(r"io\.nimctl\.\S+|org\.opencontainers\.image\.(version|revision|source)")
ENGINE_VERSION = "io.nimctl.engine.version"
# Recipes say these for people, or by what they were found; the weights themselves are locked.
_NOT_CONTENT = ("title", "weights", "variants", "notes", "page", "config_source", "min_engine_source", "licence")
# The source of weights that lie in a folder of the user, wherever that is.
FOLDER = "folder"
_HUB = re.compile(r"(?P<repo>hf://[^/@:?]+/[^/@:?]+)(?:[:@][^?]*)?(?P<query>\?.*)?")


def image(
    identity: ImageIdentity, labels: Mapping[str, str], platforms: Mapping[str, str], before: LockedImage | None
) -> LockedImage:
    """The image; `platforms` are the manifests of its index, where that was read.

    What this host cannot know of it is taken from the lock that was there `before`, if that is of the same image: one
    digest proves the others.
    """
    manifests = dict(platforms)
    if identity.manifest:
        manifests[identity.platform] = identity.manifest
    own = labels_of(labels)
    made = LockedImage(identity.reference, identity.platform, identity.digest, identity.config, manifests, own)
    if before is None or made.manifests or not same_image(made, before):
        return made
    return LockedImage(
        made.reference, made.platform, before.digest, before.config or made.config, before.manifests, made.labels
    )


def labels_of(found: Mapping[str, str]) -> dict[str, str]:
    """Of an image's labels those by which it describes itself to nimctl."""
    return {name: value for name, value in found.items() if _LABELS.fullmatch(name)}


def weights(manifest: Manifest, *, folder: bool) -> LockedWeights:
    """The weights; the folder of a user is not named."""
    files = tuple(File(f.path, f.size, f.digest) for f in sorted(manifest.files, key=lambda f: f.path))
    source = FOLDER if folder else pinned(manifest.source, manifest.revision)
    return LockedWeights(source, manifest.revision, manifest.total, files)


def pinned(address: str, revision: str) -> str:
    """`address` with `revision` in it, where its source takes one: `hf://org/name:5f0c...`. Others stay as they are.

    Versions of NGC are in its addresses already; of stores and mirrors the digests of all files are what is pinned.
    """
    found = _HUB.fullmatch(address)
    return f"{found['repo']}:{revision}{found['query'] or ''}" if found else address


def recipe(found: Recipe) -> LockedRecipe:
    """The recipe by all that it decides; words for people and places of weights are not in it."""
    plain = {key: value for key, value in to_plain(found).items() if key not in _NOT_CONTENT}
    variants = [
        {key: value for key, value in to_plain(variant).items() if key not in ("config_source", "weights")}
        for variant in found.variants
    ]
    places = [identity_of(weights) for weights in (found.weights, *(variant.weights for variant in found.variants))]
    return LockedRecipe(found.name, sha256_of({**plain, "variants": variants, "places": places}))


def layout(found: Layout | None, served: Recipe) -> LockedLayout | None:
    """The layout and the profile that it makes of the recipe `served`; None where the image chooses it."""
    if found is None:
        return None
    sizes = Parallel(
        found.tensor_parallel_size,
        found.pipeline_parallel_size,
        found.data_parallel_size,
        found.decode_context_parallel_size,
        found.expert,
    )
    profile = profile_of(of_checkpoint(served), sizes, served.weights)
    return LockedLayout(
        profile.name,
        profile.id,
        sizes.tensor,
        sizes.pipeline,
        sizes.data,
        sizes.decode_context,
        sizes.expert,
        {name: str(value) for name, value in found.arguments.items()},
    )


def variables(pairs: Iterable[tuple[str, str | Secret]]) -> dict[str, str | None]:
    """The variables asked for, each with its value, or with None where that is a secret."""
    return {name: None if _is_secret(name, value) else str(value) for name, value in pairs}


def _is_secret(name: str, value: str | Secret) -> bool:
    return isinstance(value, Secret) or is_secret_name(name) or holds_secret(value)


def options(document: Any) -> dict[str, LockedOption] | None:
    """The settled engine options of the container's own `--dry-run`; None where the document has none."""
    found = document.get("engine_options") if isinstance(document, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    settled = {}
    for name, one in found.items():
        if not isinstance(one, Mapping) or "value" not in one:
            return None
        settled[str(name)] = LockedOption(one["value"], str(one.get("source", "")))
    return settled
