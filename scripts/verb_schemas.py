"""The JSON schemas of the documents that verbs write: what each holds, said once, in a short form.

A short form is a type's name (`str`, `int`, `bool`, `any`), with `?` where it may be null and `[]` for a list of it; a
mapping stands for an object with exactly these members, and `Null(...)` for an object or null.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

_TYPES = {"str": {"type": "string"}, "int": {"type": "integer"}, "bool": {"type": "boolean"}, "any": {},
          "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
          "number": {"type": "number"}}  # fmt: skip


class Null(NamedTuple):
    """An object with these members, or null."""

    members: Mapping[str, Any]


class Document(NamedTuple):
    """A verb's document: what it is, its members, and which of them each of its shapes must have."""

    description: str
    members: Mapping[str, Any]
    shapes: tuple[tuple[str, ...], ...]


_JUDGED = {"verdict": "str", "why": "str", "digest": "str?", "by": "str?", "rule": "str?",
             "signatures": "int"}  # fmt: skip
SIGNATURE = {"policy": "str", **_JUDGED}
_RUN = {"name": "str", "runtime": "str", "id": "str", "kind": "str", "recipe": "str", "host": "str", "port": "int",
        "image": "str?", "served_names": "str[]", "layout": "str?", "stop_timeout": "int", "notes": "str[]",
        "cache": "str?", "weights": "str?", "url": "str"}  # fmt: skip
_DIFFERENCES = [{"what": "str", "locked": "str", "here": "str", "fix": "str"}]
_BUNDLE = {
    "bundle": "str",
    "model": "str?",
    "files": "int",
    "bytes": "int",
    "image": Null({"reference": "str", "digest": "str?", "manifest": "str?", "config": "str?", "platform": "str",
                   "bytes": "int"}),
    "weights": Null({"source": "str", "revision": "str", "bytes": "int"}),
    "lock": "str?",
    "signatures": "int",
    "caches": "str[]",
}  # fmt: skip

DOCUMENTS = {
    "login": Document(
        "Where the key is kept now: a file, or `docker-credential-NAME`. `plaintext`: whoever reads it has the key.",
        {"registry": "str", "stored": "str", "plaintext": "bool", "offer": "str?", "warnings": "str[]"},
        (("registry", "stored", "plaintext", "offer", "warnings"),),
    ),
    "logout": Document(
        "From where the key was taken; nowhere when there was no login.",
        {"registry": "str", "removed": "str[]", "warnings": "str[]"},
        (("registry", "removed", "warnings"),),
    ),
    "pull": Document(
        "The image that is on this host now, and the weights where they were asked for. `manifest`: that of this "
        "host's platform; `digest` may be that of an index. `was`: the manifest that the tag stood for before. "
        "`skipped`: why no image was pulled.",
        {
            "model": "str?", "image": "str?", "digest": "str?", "manifest": "str", "was": "str", "skipped": "str",
            "signature": Null(SIGNATURE),
            "weights": Null({"source": "str", "folder": "str", "revision": "str", "files": "int", "bytes": "int",
                             "signature": SIGNATURE, "warnings": "str[]"}),
        },
        (("model", "image", "digest"),),
    ),
    "build": Document(
        "The image that was built: its name, its digest where a builder gives one, that of its configuration.",
        {"image": "str", "digest": "str?", "config": "str?", "attestations": "any[]",
         "signatures": "str[]"},
        (("image", "digest", "config", "attestations"),),
    ),
    "sign": Document(
        "What was signed, with whose key, and the digests of the signatures that were pushed; or a new pair of keys.",
        {"image": "str", "digest": "digest", "fingerprint": "str", "signatures": "str[]", "key": "str", "public": "str",
         "encrypted": "bool"},
        (("image", "digest", "fingerprint", "signatures"), ("key", "public", "fingerprint", "encrypted")),
    ),
    "verify": Document(
        "Whose signatures an image and weights carry, and whether they are trusted; also where one is not.",
        {
            "image": Null({"reference": "str", "digest": "str?", "manifest": "str?", "signature": _JUDGED}),
            "weights": Null({"source": "str", "signature": _JUDGED}),
        },
        (("image", "weights"),),
    ),
    "drift": Document(
        "What runs, compared with a lock; also where they differ. `unseen`: what cannot be told from outside.",
        {"run": "str", "file": "str", "lock": "digest", "differences": _DIFFERENCES, "unseen": "str[]"},
        (("run", "file", "lock", "differences", "unseen"),),
    ),
    "lock-report": Document(
        "The lock file that was written, or that was compared with what is here; also where they differ. `moved`: the "
        "digest that the image's name stands for by now, where that is another image.",
        {"file": "str", "changed": "bool", "lock": "digest", "notes": "str[]", "model": "str", "moved": "str?",
         "differences": _DIFFERENCES},
        (("file", "changed", "lock", "notes", "moved"), ("file", "lock", "model", "moved")),
    ),
    "bundle-report": Document(
        "What a folder for a host without a network holds; sizes in bytes. `moved`: bytes that had to be copied; "
        "`left_out`: compile caches that were not loaded, as nobody vouches for them.",
        {**_BUNDLE, "moved": "any", "extra": "str[]", "signed_by": "str?", "proof": "any", "id": "str?",
         "folder": "str?", "left_out": "str[]"},
        (tuple(_BUNDLE),),
    ),
    "run": Document(
        "A run that was started, or that is ready; with --dry-run its plan (launch-plan.json) and command.",
        {**_RUN, "state": "str", "startup": "any", "signatures": [{"subject": "str", **SIGNATURE}], "plan": "any",
         "command": "str", "file": "str", "lock": "digest", "differences": _DIFFERENCES},
        (("state", *_RUN), ("plan", "command")),
    ),
    "status": Document(
        "The stages of a run's start; also where it failed.", {**_RUN, "startup": "any"}, ((*_RUN, "startup"),)
    ),
    "stop": Document("The run that was stopped.", {**_RUN, "exit_code": "int?"}, ((*_RUN, "exit_code"),)),
    "logs": Document("The last lines of a run's log, keys masked.", {**_RUN, "lines": "str[]"}, ((*_RUN, "lines"),)),
}  # fmt: skip

_ERROR = {
    "description": "What failed; `id` has a chapter in errors.md, and `exit_code` follows from it.",
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "message", "cause", "fix", "exit_code", "evidence"],
    "properties": {
        "id": {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
        **{name: {"type": "string"} for name in ("message", "cause", "fix")},
        "exit_code": {"type": "integer"},
        "evidence": {"type": "array", "items": {"type": "string"}},
    },
}


def verb_schemas() -> dict[str, str]:
    """The schemas as text, by the name of the verb."""
    return {verb: json.dumps(_schema(verb, document), indent=2) + "\n" for verb, document in DOCUMENTS.items()}


def _schema(verb: str, document: Document) -> dict[str, Any]:
    succeeded = [{"required": list(shape)} for shape in document.shapes]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{verb}.json",
        "title": f"nimctl.{verb}/1",
        "description": f"What `nimctl {verb.removesuffix('-report')} --json` prints. {document.description}",
        "type": "object",
        "additionalProperties": False,
        "required": ["schema", "ok"],
        "properties": {
            "schema": {"const": f"nimctl.{verb}/1"},
            "ok": {"type": "boolean"},
            **{name: _member(form) for name, form in document.members.items()},
            "error": {"$ref": "#/$defs/error"},
        },
        "oneOf": [
            {"properties": {"ok": {"const": True}}, "anyOf": succeeded, "not": {"required": ["error"]}},
            {"properties": {"ok": {"const": False}}, "required": ["error"]},
        ],
        "$defs": {"error": _ERROR},
    }


def _member(form: Any) -> dict[str, Any]:
    if isinstance(form, Null):
        return {"anyOf": [_member(form.members), {"type": "null"}]}
    if isinstance(form, list):
        return {"type": "array", "items": _member(form[0])}
    if isinstance(form, Mapping):
        return {
            "type": "object",
            "additionalProperties": False,
            "required": list(form),
            "properties": {name: _member(inner) for name, inner in form.items()},
        }
    name = str(form)
    if name.endswith("[]"):
        return {"type": "array", "items": _member(name[:-2])}
    if name.endswith("?"):
        return {"anyOf": [_member(name[:-1]), {"type": "null"}]}
    return dict(_TYPES[name])
