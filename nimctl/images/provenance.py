"""How an image came to be: SLSA's provenance and the in-toto statement around it, made of the build's own inputs.

https://slsa.dev/spec/v1.0/provenance https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
Nothing of the host is in it: no proxy, no index, no folder, no secret.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
CYCLONEDX = "https://cyclonedx.org/bom"
BUILD_TYPE = "urn:nimctl:build:bake:v1"
BUILDER = "urn:nimctl:builder:docker-buildx"


@dataclass(frozen=True)
class Inputs:
    """What went into a build. `base_digest` is that of the base image as it was resolved (its id for one that was in
    no registry), `revision` the commit with `-dirty` where files differed, `versions` those of the tools.
    `date` is the image's own, in seconds since 1970."""

    target: str
    platforms: tuple[str, ...]
    base: str
    base_digest: str | None
    snapshot: str | None
    source: str | None
    revision: str
    date: int
    files: Mapping[str, str]  # of the recipe: name to SHA-256
    versions: Mapping[str, str]


def statement(name: str, digest: str, predicate_type: str, predicate: Mapping[str, Any]) -> dict[str, Any]:
    """An in-toto statement about the image `name` with `digest` (`sha256:...`)."""
    subject = {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
    return {"_type": STATEMENT, "subject": [subject], "predicateType": predicate_type, "predicate": dict(predicate)}


def provenance(inputs: Inputs, parts: Sequence[Mapping[str, Any]], *, began: str, ended: str) -> dict[str, Any]:
    """SLSA's predicate. `parts` are the components of the image's CycloneDX document; times as RFC 3339.

    The times are in `metadata` and nowhere else: all the rest is the same for the same inputs.
    """
    asked = {
        "target": inputs.target,
        "platforms": list(inputs.platforms),
        "base": inputs.base,
        "snapshot": inputs.snapshot,
        "sourceDateEpoch": inputs.date,
    }
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {name: value for name, value in asked.items() if value},
            "internalParameters": {"recipe": dict(sorted(inputs.files.items()))},
            "resolvedDependencies": [*_sources(inputs), *_packages(parts)],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": dict(sorted(inputs.versions.items()))},
            "metadata": {"startedOn": began, "finishedOn": ended},
        },
    }


def _sources(inputs: Inputs) -> list[dict[str, Any]]:
    base: dict[str, Any] = {"uri": f"docker://{inputs.base}", "name": "base image"}
    if inputs.base_digest:
        base["digest"] = {"sha256": inputs.base_digest.removeprefix("sha256:")}
    own: dict[str, Any] = {"uri": f"git+{inputs.source}" if inputs.source else "urn:nimctl:source", "name": "nimctl"}
    commit, _, changed = inputs.revision.partition("-")
    if commit != "unknown":
        own["digest"] = {"gitCommit": commit}
    if changed:
        own["annotations"] = {"uncommitted": True}
    return [base, own]


def _packages(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each package that the image is made of, with the digest of the file that it came in where that is known."""
    found = []
    for part in parts:
        if "purl" not in part:
            continue
        digests = {each["alg"].lower().replace("-", ""): each["content"] for each in part.get("hashes", ())}
        found.append({"uri": part["purl"], **({"digest": digests} if digests else {})})
    return found
