"""What runs, held against its lock. Pure: whoever looked gives what was seen; what could not be seen is said."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nimctl.core.engine_options import object_of, parse_options
from nimctl.core.errors import NimctlError
from nimctl.core.fetch.manifest import File
from nimctl.core.plain import to_plain
from nimctl.core.planning.profile import identity_of
from nimctl.core.secret import MASK, is_secret_name, redact
from nimctl.lock.comparing import Difference, weights
from nimctl.lock.making import FOLDER
from nimctl.lock.model import Lock, LockedContainer, LockedWeights

# What is of one start and of one place, and no choice of anybody: sockets, nodes, where a draft lies, how to read.
_OF_A_START = frozenset(
    {
        "uds", "nnodes", "node-rank", "master-addr", "master-port", "headless", "speculative-config", "lora-modules",
        "safetensors-load-strategy", "safetensors-prefetch-block-size", "safetensors-prefetch-num-threads",
        "model-loader-extra-config",
    }
)  # fmt: skip
# What nimctl itself gives a container; what of it decides anything is compared elsewhere.
_OWN_VARIABLES = frozenset(
    {
        "NIM_RECIPE", "NIM_MODEL_PATH", "NIM_MODEL_PROFILE", "NIM_GPUS", "NIM_SERVED_MODEL_NAME",
        "NIM_REPOSITORY_OVERRIDE", "NIMCTL_WEIGHTS_DIGEST", "NVIDIA_VISIBLE_DEVICES",
        "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy",
        "https_proxy", "no_proxy", "SSL_CERT_FILE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "NGC_API_KEY", "HF_TOKEN",
    }
)  # fmt: skip
_OWN_BEGINNINGS = ("AWS_", "GOOGLE_", "NGC_")
_STOP = "`nimctl stop` this run and start it again with `nimctl run --locked`."


@dataclass(frozen=True)
class Confinement:
    """What a container may do, as the daemon says; `beyond` is what no locked run has, by its name."""

    own: LockedContainer
    beyond: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A run as it was seen. `image` is the id that its container was made of, `labels` the container's.

    `variables` are all of the container, `given` those beyond its image's; `argv` its arguments, `image_argv` those of
    the image, where none are given. `engine` are the words that the engine was started with, `metadata` and
    `manifest` what the server says; None where they were not to be had. `started_from` is the digest of the lock that
    it was started from.
    """

    image: str
    labels: Mapping[str, str]
    variables: Mapping[str, str] = field(repr=False)
    given: Mapping[str, str] = field(repr=False)
    argv: tuple[str, ...]
    image_argv: tuple[str, ...]
    confinement: Confinement
    engine: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] | None = None
    manifest: Mapping[str, Any] | None = None
    started_from: str | None = None


@dataclass(frozen=True)
class Drift:
    """Every difference, and in sentences what could not be compared."""

    rows: tuple[Difference, ...]
    unseen: tuple[str, ...] = field(default=())


def drift(lock: Lock, digest: str, seen: Seen) -> Drift:
    """What `seen` has drifted from `lock`, whose file has this digest."""
    unseen: list[str] = []
    rows = [
        *_image(lock, seen),
        *_weights(lock, seen, unseen),
        *_layout(lock, seen, unseen),
        *_row("engine.arguments", list(lock.engine.arguments or seen.image_argv), list(seen.argv)),
        *_engine(lock, seen, unseen),
        *_variables(lock, seen),
        *_confinement(lock.container, seen.confinement),
    ]
    if seen.started_from is None:
        unseen.append("This run was started from no lock.")
    elif seen.started_from != digest:
        unseen.append(f"This run was started from another lock file ({seen.started_from}).")
    return Drift(tuple(replace(row, fix=_fix(row.what)) for row in rows), tuple(unseen))


def _fix(what: str) -> str:
    if what.startswith("container"):
        return f"Somebody started this container with other rights: {_STOP}"
    return f"If what runs is wanted, lock it (`nimctl lock`); else {_STOP}"


def _row(what: str, locked: Any, here: Any) -> Iterator[Difference]:
    if locked != here:
        yield Difference(what, _text(locked), _text(here), "")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return json.dumps(value, separators=(",", ":"))
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _image(lock: Lock, seen: Seen) -> Iterator[Difference]:
    digests = (*lock.image.identity.digests, *lock.image.manifests.values())
    if seen.image not in digests:
        yield Difference("image", lock.image.config or digests[0], seen.image, "")


def _weights(lock: Lock, seen: Seen, unseen: list[str]) -> Iterator[Difference]:
    if lock.weights is None:
        return
    asked = seen.given.get("NIM_MODEL_PATH", "")
    place = identity_of(lock.weights.source)
    if "://" in asked and place and identity_of(asked) != place:
        yield Difference("weights.source", lock.weights.source, redact(asked), "")
    if seen.manifest is None:
        unseen.append("The weights that are served could not be compared: the server does not answer.")
        return
    found = _served(seen.manifest)
    if found is None:
        unseen.append("The weights that are served could not be compared: /v1/manifest has another shape.")
        return
    source = lock.weights.source
    if source == FOLDER:  # which has no revision: the server says where it is mounted
        found = replace(found, revision=lock.weights.revision)
    yield from weights(lock.weights, replace(found, source=source) if _is_of(found, lock.weights) else found)


def _is_of(found: LockedWeights, locked: LockedWeights) -> bool:
    """Whether both are the same checkpoint: its revision is compared on its own, and a folder has no address."""
    return locked.source == FOLDER or identity_of(found.source) == identity_of(locked.source)


def _served(document: Mapping[str, Any]) -> LockedWeights | None:
    try:
        files = tuple(
            File(str(one["path"]), int(one["size"]), f"sha256:{one['sha256']}" if one.get("sha256") else None)
            for one in document["files"]
        )
        source, revision = str(document["source"]), str(document["revision"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return LockedWeights(source, revision, sum(file.size for file in files), files)


def _layout(lock: Lock, seen: Seen, unseen: list[str]) -> Iterator[Difference]:
    if lock.layout is None:
        return
    if seen.metadata is None:
        unseen.append("The profile could not be asked for: the server does not answer.")
        return
    yield from _row("layout.id", lock.layout.id, seen.metadata.get("selectedModelProfileId"))
    yield from _row("layout.profile", lock.layout.profile, seen.metadata.get("selectedModelProfile"))
    yield from _row("layout.tensor", lock.layout.tensor, seen.metadata.get("tensorParallelSize"))
    yield from _row("layout.pipeline", lock.layout.pipeline, seen.metadata.get("pipelineParallelSize"))
    yield from _row("gpus.count", lock.gpus.count, seen.metadata.get("gpus"))


def _engine(lock: Lock, seen: Seen, unseen: list[str]) -> Iterator[Difference]:
    options = lock.engine.options
    if options is None:
        if lock.layout is not None:
            unseen.append("The engine's options could not be compared: the lock was made without the image.")
        return
    if seen.engine is None:
        unseen.append("The engine's options could not be compared: its start is not in the log.")
        return
    try:
        found = options_of(seen.engine)
    except NimctlError as error:
        unseen.append(f"The engine's options could not be compared: {error.message}.")
        return
    wanted = {name: one.value for name, one in options.items() if name not in _OF_A_START}
    for name in sorted({*wanted, *found}):
        yield from _row(f"engine.options.{name}", wanted.get(name), found.get(name))


def options_of(argv: Sequence[str]) -> dict[str, Any]:
    """The options in the engine's command line, with their values as a lock has them. Raises `usage`."""
    words = list(argv)
    start = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    found: dict[str, Any] = {}
    for option in parse_options(words[start:]):
        value: Any = object_of(option)
        if value is None:
            values = option.values
            value = (values[0] if len(values) == 1 else list(values)) if values else not option.name.startswith("no-")
        if option.name not in _OF_A_START:
            found[option.name.removeprefix("no-")] = value
    return found


def _variables(lock: Lock, seen: Seen) -> Iterator[Difference]:
    for name, value in lock.variables.items():
        here = seen.variables.get(name)
        if value is None:  # a secret: nobody but the run knows its value
            if here is None:
                yield Difference(f"variables.{name}", "set", "not set", "")
        elif here != value:
            yield Difference(f"variables.{name}", value, "not set" if here is None else _shown(name, here), "")
    for name, value in seen.given.items():
        own = name in _OWN_VARIABLES or name.startswith(_OWN_BEGINNINGS) or name.endswith("_FILE")
        if not own and name not in lock.variables:
            yield Difference(f"variables.{name}", "not set", _shown(name, value), "")
    profile = seen.given.get("NIM_MODEL_PROFILE")
    if profile and lock.layout is not None and profile not in (lock.layout.id, lock.layout.profile):
        yield Difference("variables.NIM_MODEL_PROFILE", lock.layout.profile, redact(profile), "")


def _shown(name: str, value: str) -> str:
    return MASK if is_secret_name(name) or redact(value) != value else value


def _confinement(locked: LockedContainer, found: Confinement) -> Iterator[Difference]:
    wanted, here = to_plain(locked), to_plain(found.own)
    for name, value in wanted.items():
        yield from _row(f"container.{name}", value, here[name])
    for name, words in found.beyond.items():
        yield from _row(f"container.{name}", (), words)
