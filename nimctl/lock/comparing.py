"""Two locks held against each other: every difference, and what is known on one side only is none. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nimctl.core.fetch.manifest import File
from nimctl.core.plain import to_plain
from nimctl.lock.model import Lock, LockedEngine, LockedImage, LockedWeights

_RELOCK = "`nimctl lock` writes what is here into the lock, for review"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was locked: what, both sides as text, and the way out as a sentence."""

    what: str
    locked: str
    here: str
    fix: str

    def to_json(self) -> dict[str, str]:
        """The difference as part of a JSON document."""
        return {"what": self.what, "locked": self.locked, "here": self.here, "fix": self.fix}


# By the beginning of `what`; the first that fits.
_WAYS_OUT = (
    ("image.platform", "Start it on the platform that it was locked on, or lock it on this one: `nimctl lock`."),
    ("image", f"Pull or build the locked image, or lock the one that is here: {_RELOCK}."),
    ("weights", f"Fetch the locked revision, or lock the one that is there now: {_RELOCK}."),
    ("recipe", f"Use the version of nimctl that wrote the lock, or lock again: {_RELOCK}."),
    ("gpus", "Use the GPUs that it was made for (`--gpus` chooses among several), or lock on these: `nimctl lock`."),
    ("layout", f"Use GPUs and a version of nimctl as they were locked, or lock again: {_RELOCK}."),
    ("engine", f"Change the argument back, or lock it: {_RELOCK}."),
    ("variables", f"Change the variable back, or lock it: {_RELOCK}."),
    ("container", f"Use the version of nimctl that wrote the lock, or lock again: {_RELOCK}."),
    ("model", f"Name the locked model, or lock the other one: {_RELOCK}."),
)


def compare(locked: Lock, here: Lock) -> tuple[Difference, ...]:
    """Every difference, in the order of the document.

    The version that wrote a lock is none: what it decides is compared itself. What one side does not know (a digest,
    the settled options) is none either.
    """
    return (
        *_field("model", locked.model, here.model),
        *images(locked.image, here.image),
        *weights(locked.weights, here.weights),
        *_field("recipe", to_plain(locked.recipe), to_plain(here.recipe)),
        *_field("layout", to_plain(locked.layout), to_plain(here.layout)),
        *_field("gpus", to_plain(locked.gpus), to_plain(here.gpus)),
        *_engines(locked.engine, here.engine),
        *_field("variables", dict(locked.variables), dict(here.variables)),
        *_field("container", to_plain(locked.container), to_plain(here.container)),
    )


def same_image(one: LockedImage, other: LockedImage) -> bool:
    """Whether both are the same image, by digests alone.

    Configurations decide where both are known: a configuration names every layer by its content. Else any digest that
    both have does, because each names the next.
    """
    if one.platform == other.platform and one.config and other.config:
        return one.config == other.config
    return bool({*one.identity.digests, *one.manifests.values()} & {*other.identity.digests, *other.manifests.values()})


def images(locked: LockedImage, here: LockedImage) -> tuple[Difference, ...]:
    """One difference at most for the digests, and one for the name."""
    found = []
    if locked.platform != here.platform:
        found.append(difference("image.platform", locked.platform, here.platform))
    if not same_image(locked, here):
        found.append(difference("image", *_shown(locked, here)))
    elif dict(locked.labels) != dict(here.labels):  # the same image says the same of itself: this was edited
        found += _field("image.labels", dict(locked.labels), dict(here.labels))
    found += _clashing_digests(locked, here)
    if locked.reference != here.reference:
        found.append(difference("image.reference", locked.reference, here.reference))
    return tuple(found)


def _clashing_digests(locked: LockedImage, here: LockedImage) -> Iterator[Difference]:
    """Of an image that is the same by one digest, others that differ: somebody edited one of them."""
    if not same_image(locked, here):
        return
    for platform in locked.manifests.keys() & here.manifests.keys():
        yield from _field(f"image.manifests.{platform}", locked.manifests[platform], here.manifests[platform])
    if locked.digest and here.digest and locked.manifests and here.manifests:
        yield from _field("image.digest", locked.digest, here.digest)


def weights(locked: LockedWeights | None, here: LockedWeights | None) -> tuple[Difference, ...]:
    """What differs of the weights; a digest that one side does not know is no difference.

    An address that differs by its revision alone is told as that.
    """
    if locked is None or here is None:
        return _field("weights", _summary(locked), _summary(here))
    moved = here.revision != "" and here.source.replace(here.revision, locked.revision) == locked.source
    return (
        *(() if moved else _field("weights.source", locked.source, here.source)),
        *_field("weights.revision", locked.revision, here.revision),
        *_files({file.path: file for file in locked.files}, {file.path: file for file in here.files}),
    )


def _files(locked: Mapping[str, File], here: Mapping[str, File]) -> Iterator[Difference]:
    for path in sorted({*locked, *here}):
        one, other = locked.get(path), here.get(path)
        if one is None or other is None or _unlike(one, other):
            yield difference(f"weights.files.{path}", _file(one), _file(other))


def _unlike(one: File, other: File) -> bool:
    """Digests of different algorithms cannot be held against each other."""
    if one.size != other.size:
        return True
    algorithms = [(file.digest or "").partition(":")[0] for file in (one, other)]
    return all(algorithms) and algorithms[0] == algorithms[1] and one.digest != other.digest


def _engines(locked: LockedEngine, here: LockedEngine) -> Iterator[Difference]:
    yield from _field("engine.version", locked.version, here.version)
    yield from _field("engine.arguments", list(locked.arguments), list(here.arguments))
    if locked.options is not None and here.options is not None:
        yield from _field("engine.options", to_plain(locked.options), to_plain(here.options))


def _field(what: str, locked: Any, here: Any) -> tuple[Difference, ...]:
    """The differences of two plain values: of mappings one for each key."""
    if isinstance(locked, Mapping) and isinstance(here, Mapping):
        keys = [*locked, *(key for key in here if key not in locked)]
        return tuple(
            one for key in keys for one in _field(f"{what}.{key}", locked.get(key, _NOTHING), here.get(key, _NOTHING))
        )
    if type(locked) is type(here) and locked == here:
        return ()
    return (difference(what, _text(locked), _text(here)),)


_NOTHING = object()


def difference(what: str, locked: str, here: str) -> Difference:
    """A difference with the way out for its kind."""
    fix = next(way for beginning, way in _WAYS_OUT if what == beginning or what.startswith(beginning + "."))
    return Difference(what, locked, here, fix)


def _text(value: Any) -> str:
    if value is _NOTHING:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _shown(*images: LockedImage) -> list[str]:
    """The digests by which images are told apart: of the same kind, where all have one."""
    kinds = ([one.config for one in images], [one.digest for one in images])
    told = next((kind for kind in kinds if all(kind)), [next(iter(one.identity.digests), None) for one in images])
    return [digest or "unknown" for digest in told]


def _file(file: File | None) -> str:
    return "-" if file is None else f"{file.size} bytes, {file.digest or 'no digest'}"


def _summary(found: LockedWeights | None) -> str:
    return "-" if found is None else f"{found.source}, {len(found.files)} files, {found.bytes} bytes"
