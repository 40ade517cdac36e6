"""Signed weights: whose the signature of a snapshot is, and whether every file is what was signed.

The format is OpenSSF Model Signing, as NVIDIA signs the models of NGC:
https://docs.nvidia.com/nim/large-language-models/latest/reference/model-signature-verification.html and
https://github.com/sigstore/model-transparency. The only importer of model_signing.
"""

import contextlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from model_signing._hashing import memory
from model_signing._signing import sign_certificate, sign_ec_key, sign_sigstore_pb, signing
from model_signing.manifest import Manifest as SignedManifest

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.retry import Stop
from nimctl.core.fetch.sources.selection import is_signature, needed
from nimctl.core.fetch.verify import judge
from nimctl.trust import claims
from nimctl.trust.judging import Judgement, RefusedError
from nimctl.trust.keyless import open_bundle
from nimctl.trust.policy import Rule

SIGNATURE = "model.sig"
_LARGEST = 64 * 2**20  # bytes of a signature: it lists every file or shard
_MOST_NAMED = 5
_READ = 8 * 2**20  # bytes
_HASHES: Mapping[str, Callable[[], Any]] = {
    "sha256": memory.SHA256,
    "blake2b": memory.BLAKE2,
    "blake3": memory.BLAKE3,
}
OnBytes = Callable[[int, File], None]


@dataclass(frozen=True)
class Promise:
    """What was signed: a digest for each file, or for each shard (start and end in bytes) of it.

    `ignored` are the paths that the signer left out, `by` who signed. A `sharded` list knows no empty files.
    """

    by: str
    hash_type: str
    parts: Mapping[str, tuple[tuple[int, int | None, str], ...]]
    ignored: tuple[str, ...]
    sharded: bool


@dataclass(frozen=True)
class Found:
    """How a folder compares with what was signed; paths relative, `files` those that are signed and here.

    `unfetched` were signed and are not here, and no engine reads them; `uncovered` are here and no engine reads them
    either: the signer left them out, or they are signatures, or a list of shards cannot name them, being empty.
    """

    files: tuple[str, ...]
    differing: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    unfetched: tuple[str, ...] = ()
    uncovered: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every file is what was signed, none that is served is missing, and no other is there."""
        return not (self.differing or self.missing or self.extra)


def read_promise(signature: Path, rule: Rule) -> Promise:
    """What the file `signature` promises, once somebody whom `rule` trusts is known to have signed it.

    Raises RefusedError (wrong-key, wrong-identity, expired-certificate, malformed), `trust-invalid` for a key file.
    """
    bundle = _read(signature)
    kind = _kind(bundle)
    refusals: list[RefusedError] = []
    for fits, check in _checks(rule):
        if kind not in fits:
            refusals.append(RefusedError("wrong-key", f"it is signed with a {kind}, and the rule trusts none"))
            continue
        try:
            manifest, by = check(signature, bundle)
        except RefusedError as error:
            refusals.append(error)
        else:
            return _promise(manifest, by)
    order = ("wrong-identity", "expired-certificate", "wrong-key", "malformed")
    raise min(refusals, key=lambda e: order.index(e.verdict) if e.verdict in order else len(order))


def survey(folder: Path, signature: Path, promise: Promise) -> Found:
    """Which files of `folder` are signed, by their names alone: not one is read."""
    there, signed = frozenset(files_below(folder)), frozenset(promise.parts)
    ignored = [PurePosixPath(path) for path in promise.ignored]
    left_out = {p for p in there if any(PurePosixPath(p).is_relative_to(i) for i in ignored)}
    # the promise is about what is served: a signer who leaves out a file that an engine reads has not made it
    uncovered = (left_out - needed(there)) | {p for p in there if is_signature(p)} | {_relative(signature, folder)}
    if promise.sharded:
        uncovered |= {p for p in there if _size(folder / p) == 0}
    served = needed(signed)
    return Found(
        files=tuple(sorted(there & signed)),
        missing=tuple(sorted((signed - there) & served)),
        extra=tuple(sorted(there - signed - uncovered)),
        unfetched=tuple(sorted(signed - there - served)),
        uncovered=tuple(sorted((uncovered & there) - signed - {_relative(signature, folder)})),
    )


def compare(folder: Path, signature: Path, promise: Promise, *, on_bytes: OnBytes, stop: Stop) -> Found:
    """Hash every signed file of `folder` and compare. Links to files count as their content, as the cache lays them.

    `on_bytes(bytes read of the file, file)` tells how far it is. Raises `interrupted` when stopped.
    """
    found = survey(folder, signature, promise)
    differing = _differing(folder, {p: promise.parts[p] for p in found.files}, promise.hash_type, on_bytes, stop)
    if stop.is_set:
        raise NimctlError(
            "interrupted", "the check was stopped", cause="somebody asked for it", fix="Run it again from the start."
        )
    return replace(found, differing=tuple(p for p in found.files if p in differing))


def judgement(found: Found, by: str) -> Judgement:
    """The verdict on weights whose files compare so."""
    if found.whole:
        beside = _told(("not fetched", found.unfetched), ("not covered", found.uncovered))
        return Judgement("good", "; ".join((f"signed by {by}, {len(found.files)} files", *beside)), by=by, seen=1)
    told = _told(("changed", found.differing), ("missing", found.missing), ("not signed", found.extra))
    return Judgement("other-digest", f"{by} signed other files; {'; '.join(told)}", seen=1)


def _told(*lists: tuple[str, Sequence[str]]) -> list[str]:
    return [
        f"{what}: {', '.join(paths[:_MOST_NAMED])}{' and others' if len(paths) > _MOST_NAMED else ''}"
        for what, paths in lists
        if paths
    ]


def state_of(folder: Path, signature: Path) -> tuple[tuple[str, int, int, int, int], ...]:
    """What changes with any change of a file: path, inode, size, and both times (ns) of its content, sorted.

    The time of change cannot be set by whoever may only write the file.
    """
    paths = [(path, folder / path) for path in files_below(folder)]
    stats = [(name, path.stat()) for name, path in (*paths, (str(signature), signature))]
    return tuple(sorted((n, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for n, s in stats))


def files_below(folder: Path) -> tuple[str, ...]:
    """Every file below `folder`, by relative path with slashes, sorted; links to files are files, to folders too.

    What is neither (a link to a folder, to nothing, a socket) is listed as well: nothing that was not signed hides.
    """
    found: list[str] = []

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=fail):
        found += [_relative(Path(parent, name), folder) for name in names]
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        found += [_relative(Path(parent, name), folder) for name in linked]
    return tuple(sorted(found))


def _kind(bundle: bytes) -> str:
    """What the signature was made with, by its own word: `key`, `certificate`, or `logged certificate` (keyless)."""
    try:
        material = json.loads(bundle)["verificationMaterial"]
        logged = bool(material.get("tlogEntries"))
        if "publicKey" in material:
            return "key"
        if "x509CertificateChain" in material or "certificate" in material:
            return "logged certificate" if logged else "certificate"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise RefusedError("malformed", "the signature is no sigstore bundle")


_Check = Callable[[Path, bytes], tuple[SignedManifest, str]]


def _checks(rule: Rule) -> list[tuple[tuple[str, ...], _Check]]:
    """For each key, certificate and identity of the rule: what it can check, and how."""

    def by_key(key: Path) -> _Check:
        return lambda signature, _: (_library(lambda: sign_ec_key.Verifier(key), key, signature), f"key {key}")

    def by_certificate(root: Path) -> _Check:
        return lambda signature, _: (
            _library(lambda: sign_certificate.Verifier([root]), root, signature),
            f"a certificate of {root}",
        )

    checks: list[tuple[tuple[str, ...], _Check]] = [(("key",), by_key(key)) for key in rule.keys]
    checks += [(("certificate", "logged certificate"), by_certificate(root)) for root in rule.certs]
    for who in rule.keyless:

        def keyless(_: Path, bundle: bytes, who: Any = who) -> tuple[SignedManifest, str]:
            payload, by = open_bundle(bundle, identity=who.identity, issuer=who.issuer, trusted_root=who.trusted_root)
            return _manifest(payload), by

        checks.append((("logged certificate",), keyless))
    return checks


def _library(make: Callable[[], Any], trusted: Path, signature: Path) -> SignedManifest:
    try:
        verifier = make()
    except (OSError, ValueError, TypeError) as error:
        raise NimctlError(
            "trust-invalid",
            f"{trusted} cannot be used",
            cause=getattr(error, "strerror", None) or " ".join(str(error).split())[:160] or type(error).__name__,
            fix="Name a PEM file: an EC public key under `keys`, certificates under `certs`.",
        ) from None
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):  # it prints what it thinks of older signatures
            signed = sign_sigstore_pb.Signature.read(signature)
            manifest: SignedManifest = verifier.verify(signed)
    except (KeyError, TypeError, AttributeError, IndexError, json.JSONDecodeError) as error:
        raise RefusedError("malformed", f"{signature} cannot be read: {_words(error)}") from None
    except Exception as error:  # the libraries below have several families of their own; each is a refusal
        raise RefusedError("wrong-key", f"{trusted} did not make it: {_words(error)}") from None
    return manifest


def _manifest(payload: bytes) -> SignedManifest:
    try:
        document = json.loads(payload)
        if document["_type"] != claims.STATEMENT_TYPE:
            raise ValueError("it is no in-toto statement")
        return signing.dsse_payload_to_manifest(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError("malformed", f"what was signed is no list of files: {_words(error)}") from None


def _promise(manifest: SignedManifest, by: str) -> Promise:
    parameters = manifest.serialization_type
    sharded = parameters["method"] == "shards"
    hash_type = str(parameters["hash_type"])
    if hash_type not in _HASHES:
        raise RefusedError("malformed", f"its files are hashed with {hash_type}, which is not supported")
    parts: dict[str, list[tuple[int, int | None, str]]] = {}
    for item in manifest.resource_descriptors():
        name, start, end = item.identifier, 0, None
        if sharded:
            name, first, last = item.identifier.rsplit(":", 2)
            start, end = int(first), int(last)
        try:
            File(name, 0)
        except ValueError:
            raise RefusedError("malformed", f"it names {name!r}, which is no path in a folder") from None
        parts.setdefault(name, []).append((start, end, item.digest.digest_hex))
    ignored = tuple(str(path) for path in parameters.get("ignore_paths", ()))
    return Promise(by, hash_type, {name: tuple(sorted(p)) for name, p in parts.items()}, ignored, sharded)


def _differing(
    folder: Path,
    parts: Mapping[str, Sequence[tuple[int, int | None, str]]],
    hash_type: str,
    on_bytes: OnBytes,
    stop: Stop,
) -> set[str]:
    sizes = {path: _size(folder / path) for path in parts}
    differing = {path for path, size in sizes.items() if size is None}
    plain = [p for p in parts if p not in differing and hash_type == "sha256" and parts[p][0][1] is None]
    items = [(folder / path, File(path, sizes[path] or 0, f"sha256:{parts[path][0][2]}")) for path in plain]
    differing |= {verdict.file.path for verdict in judge(items, on_bytes=on_bytes, stop=stop) if verdict.bad}
    for path in set(parts) - set(plain) - differing:
        file = File(path, sizes[path] or 0)
        if not stop.is_set and not _same(folder / path, file, parts[path], _HASHES[hash_type], on_bytes):
            differing.add(path)
    return differing


def _same(
    path: Path,
    file: File,
    parts: Sequence[tuple[int, int | None, str]],
    hasher: Callable[[], Any],
    on_bytes: OnBytes,
) -> bool:
    """Whether every part has its digest, and the parts are the whole file without a gap."""
    at = 0
    with path.open("rb") as content:
        for start, end, digest in parts:
            stop = file.size if end is None else end
            if start != at or stop > file.size:
                return False
            engine = hasher()
            while at < stop and (data := content.read(min(_READ, stop - at))):
                engine.update(data)
                at += len(data)
                on_bytes(at, file)
            if engine.compute().digest_hex != digest:
                return False
    return at == file.size


def _size(path: Path) -> int | None:
    """The size of a regular file or of one behind a link; None for anything else."""
    return path.stat().st_size if path.is_file() else None


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else ""


def _read(signature: Path) -> bytes:
    try:
        with signature.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise RefusedError("malformed", f"{signature} cannot be read: {error.strerror}") from None
    if len(data) > _LARGEST:
        raise RefusedError("malformed", f"{signature} is too large for a signature")
    return data


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
