"""What a registry says of an image, read: indexes of platforms, manifests of one platform, configurations. Pure.

https://github.com/opencontainers/image-spec/blob/main/spec.md, and Docker's own two kinds, which have the same fields:
https://distribution.github.io/distribution/spec/manifest-v2-2/
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import DIGEST

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
# Indexes first: what a tag of a multi-platform image stands for is its index.
ACCEPT = ", ".join((*INDEXES, *MANIFESTS))

_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_LAYER = re.compile(
    r"application/vnd\.oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?"
    r"|application/vnd\.docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip|\.zstd)?"
)
# Media types of manifests that are none of the above have this in common; other types are no answer of a registry.
_REGISTRY_TYPE = "application/vnd."
# How BuildKit marks the entry of an index that is no image but says something about one:
# https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md
_ATTESTS = "vnd.docker.reference.type"
_UNKNOWN = "unknown/unknown"
# What every processor of the architecture is, so that an entry may say it or leave it out.
_BASE_VARIANTS = {"arm64": "v8", "amd64": "v1"}


@dataclass(frozen=True)
class Blob:
    """Content by its digest; `size` in bytes as it lies in the registry, mostly compressed."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True)
class Entry:
    """One image of an index. `platform` is `linux/amd64`, or `linux/arm64/v8` with a variant; empty: it says none."""

    blob: Blob
    platform: str


@dataclass(frozen=True)
class Index:
    """An index of platforms, without its attestations."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Manifest:
    """The image of one platform: its configuration and its layers, the lowest first."""

    config: Blob
    layers: tuple[Blob, ...]


@dataclass(frozen=True)
class ImageConfig:
    """What an image's configuration says. `platform` is None where it names none."""

    platform: str | None
    labels: Mapping[str, str]
    diff_ids: tuple[str, ...]


def digest_of(body: bytes) -> str:
    """The digest of content: `sha256:...`."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def read(body: bytes, media_type: str, name: str) -> Index | Manifest:
    """The index or manifest in `body`, which the registry called `media_type`; `name` is for the error.

    Raises `image-incompatible` for kinds that are no image (a chart, an artifact, schema 1) and for such as contradict
    themselves, `image-pull-failed` for what is no manifest at all, as the page of a proxy.
    """
    document = _document(body, name, media_type)
    kind = str(document.get("mediaType") or media_type.partition(";")[0].strip())
    if kind in INDEXES:
        _refuse_both(document, ("layers", "config"), name)
        return Index(tuple(entry for one in _items(document, "manifests", name) if (entry := _entry(one, name))))
    if kind in MANIFESTS:
        _refuse_both(document, ("manifests",), name)
        return _manifest(document, name)
    if not kind.startswith(_REGISTRY_TYPE):
        raise _no_manifest(name, f"its type is {kind or 'not told'}")
    raise _incompatible(name, f"its manifest is of the unknown kind {kind}")


def choose(index: Index, platform: str, name: str) -> Blob:
    """The manifest of `platform` in an index, or its only one if that says none: its configuration will.

    Raises `platform-missing`, which names those that exist.
    """
    wanted = _base(platform)
    for entry in index.entries:
        if _base(entry.platform) == wanted:
            return entry.blob
    there = [entry.platform for entry in index.entries]
    if there == [""]:
        return index.entries[0].blob
    raise platform_missing(name, platform, [one or "an unnamed platform" for one in there])


def read_config(body: bytes, name: str) -> ImageConfig:
    """The configuration in `body`. Raises `image-incompatible`."""
    try:
        document = json.loads(body)
        labels = (document.get("config") or {}).get("Labels") or {}
        diff_ids = (document.get("rootfs") or {}).get("diff_ids") or ()
        names = [str(document.get(key) or "") for key in ("os", "architecture", "variant")]
        return ImageConfig(
            platform="/".join(filter(None, names)) if names[0] and names[1] else None,
            labels={str(key): str(value) for key, value in labels.items()},
            diff_ids=tuple(map(str, diff_ids)),
        )
    except (ValueError, AttributeError, TypeError):
        raise _incompatible(name, "its configuration is not the JSON object that it should be") from None


def require_platform(config: ImageConfig, platform: str, name: str) -> None:
    """Refuse an image without an index that is for another platform. Raises `platform-missing`."""
    if config.platform and _base(config.platform) != _base(platform):
        raise platform_missing(name, platform, [config.platform])


def platform_missing(name: str, platform: str, there: list[str]) -> NimctlError:
    """The error for an image that exists, and not for this host."""
    known = ", ".join(dict.fromkeys(there)) or "no platform at all"
    return NimctlError(
        "platform-missing",
        f"{name} does not exist for {platform}",
        cause=f"it exists for {known}",
        fix="Use a host of that architecture, or another tag: some publishers name a tag for each architecture.",
    )


def nested(name: str) -> NimctlError:
    """The error for an index whose entry is an index again."""
    return _incompatible(name, "its index names another index where an image should be")


def _base(platform: str) -> tuple[str, str, str]:
    """A platform with the variant that every processor of its architecture has left out."""
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    return system, architecture, "" if variant == _BASE_VARIANTS.get(architecture) else variant


def _entry(one: Mapping[str, Any], name: str) -> Entry | None:
    """None for what is no image: an attestation, or a kind nested in an index that engines do not pull either."""
    annotations, where = one.get("annotations") or {}, one.get("platform") or {}
    if not isinstance(annotations, dict) or not isinstance(where, dict):
        raise _incompatible(name, "an entry of its index is not what it should be")
    platform = "/".join(filter(None, (str(where.get(key) or "") for key in ("os", "architecture", "variant"))))
    # engines ask for what is listed without a type, and read what they get
    if _ATTESTS in annotations or platform == _UNKNOWN or (one.get("mediaType") or OCI_MANIFEST) not in MANIFESTS:
        return None
    return Entry(_blob(one, name), platform)


def _manifest(document: Mapping[str, Any], name: str) -> Manifest:
    config = document.get("config")
    manifest = Manifest(
        _blob(config if isinstance(config, dict) else {}, name),
        tuple(_blob(layer, name) for layer in _items(document, "layers", name)),
    )
    if manifest.config.media_type not in _CONFIGS:
        raise _incompatible(name, f"it is no container image: its configuration is {manifest.config.media_type}")
    for layer in manifest.layers:
        if not _LAYER.fullmatch(layer.media_type):
            raise _incompatible(name, f"a layer is of the unknown kind {layer.media_type}")
    return manifest


def _blob(one: Mapping[str, Any], name: str) -> Blob:
    digest, size, kind = one.get("digest"), one.get("size"), one.get("mediaType")
    if not (isinstance(digest, str) and DIGEST.fullmatch(digest)):
        raise _incompatible(name, f"it names content by {_shown(digest)}, which is no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _incompatible(name, f"the size of {digest} is {_shown(size)}")
    return Blob(digest, size, str(kind or ""))


def _items(document: Mapping[str, Any], key: str, name: str) -> list[dict[str, Any]]:
    found = document.get(key)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _incompatible(name, f"its manifest has no list of {key}")
    return found


def _refuse_both(document: Mapping[str, Any], others: tuple[str, ...], name: str) -> None:
    """What reads as an index and as a manifest means two things under one digest:
    https://github.com/advisories/GHSA-mc8v-mgrf-8f4m
    """
    if any(key in document for key in others):
        raise _incompatible(name, "its manifest is an index and an image at once")


def _document(body: bytes, name: str, media_type: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _no_manifest(name, f"the answer ({media_type or 'of no type'}) is not a JSON object")
    return document


def _shown(value: object) -> str:
    return f"{value!r:.80}"


def _incompatible(name: str, cause: str) -> NimctlError:
    return NimctlError(
        "image-incompatible",
        f"{name} cannot be used",
        cause=cause,
        fix="Check the name: charts, models and signatures lie in registries too; else have the image pushed again.",
    )


def _no_manifest(name: str, cause: str) -> NimctlError:
    return NimctlError(
        "image-pull-failed",
        f"the registry gave no manifest for {name}",
        cause=cause,
        fix="Check the registry's name and any proxy on the way.",
    )
