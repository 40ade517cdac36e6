"""Checkpoints in a plain folder of a web server: `https://host/folder`, `http://` where that is what was typed.

What the folder holds is learned, in this order, from `nimctl.manifest.json` (paths, sizes, digests), from the directory
listing that nginx and Apache make, and from `model.safetensors.index.json` with the file names that every checkpoint
uses; `SHA256SUMS` adds digests and names to the last two. There is no revision: what was found is pinned by ETag or
date, sent as If-Match or If-Unmodified-Since (https://www.rfc-editor.org/rfc/rfc9110#section-13.1).
"""

import base64
import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

from nimctl.core.cache import Part
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import http, retry
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.protocol import RangeIgnored, RangeStream
from nimctl.core.fetch.retry import Patience
from nimctl.core.fetch.sources import cached, checksums, listing, mirror_errors, mirror_pages, selection
from nimctl.core.fetch.sources.integrity import INDEX
from nimctl.core.fetch.sources.opening import Opening
from nimctl.core.secret import Secret

SCHEMES = ("https://", "http://")
T = TypeVar("T")
# What transformers and vLLM look for beside the weights: https://huggingface.co/docs/transformers/main_classes/model
KNOWN = (
    "config.json", "generation_config.json", INDEX, "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model",
    "spiece.model", "tekken.json", "chat_template.jinja", "chat_template.json", "preprocessor_config.json",
    "processor_config.json", "video_preprocessor_config.json", "params.json", "LICENSE",
)  # fmt: skip
_ABSENT = (403, 404, 410)  # 403: what a server says of a folder without a listing, or of a name that it hides
_DEEPEST = 8
_MOST_PAGES = 1000
_AT_ONCE = 8  # questions about single files
_PLAIN = {"Accept-Encoding": "identity"}


class MirrorSource:
    """One folder of a web server. May be used by many threads."""

    part: Part = "huggingface"
    in_place: None = None
    refs = ("main",)

    def __init__(self, base: str, user: tuple[str, Secret] | None, only: tuple[str, ...], opening: Opening) -> None:
        self._base = base  # ends with a slash, holds no user
        self._user = user
        parts = urlsplit(base)
        self.repo = checksums.cache_name(parts.scheme, unquote(f"{parts.netloc}{parts.path}".rstrip("/")))
        source = base + listing.asking_for(only)
        self._wanted = cached.Wanted(opening.paths.repo(self.repo, self.part), source, "main", False, only)
        self._opening = opening
        self._client = opening.client
        self._lock = threading.Lock()
        self._pins: dict[str, str] = {}  # path: "If-Match: ..." or "If-Unmodified-Since: ..."
        self._targets: dict[str, http.Target] = {}

    def __repr__(self) -> str:
        return f"MirrorSource({self._wanted.source!r})"

    def resolve(self) -> Manifest:
        """Look over the folder, unless the cache decides; see `cached.resolve`.

        Raises `weights-*`, `key-missing`, `key-refused`, `clock-wrong`, `tls-untrusted`, `proxy-refused`.
        """
        return cached.resolve(self._wanted, self._ask, self._opening)

    def open_range(self, file: File, start: int, stop: int) -> RangeStream:
        """The bytes [start, stop) of `file` as it was found; see `protocol.Remote`."""
        if file.digest is None and file.path not in self._pins and (start, stop) != (0, file.size):
            raise RangeIgnored  # without digest, ETag and date, two answers might be of two files
        try:
            return self._client.open_range(self._target(file), start, stop)
        except http.Denied as denied:
            raise self._denied(denied.answer) from denied

    def _target(self, file: File) -> http.Target:
        with self._lock:
            if file.path not in self._targets:
                headers = dict(self._headers)
                if file.digest is None and (pin := self._pins.get(file.path)):
                    name, _, value = pin.partition(": ")
                    headers[name] = value
                self._targets[file.path] = http.Target(
                    self._url(file.path), size=file.size, headers=headers, exact=file.digest is None
                )
            return self._targets[file.path]

    @property
    def _headers(self) -> dict[str, str]:
        if self._user is None:
            return {}
        name, password = self._user
        both = base64.b64encode(f"{name}:{password.reveal()}".encode()).decode()
        return {"Authorization": f"Basic {both}"}

    def _url(self, path: str) -> str:
        return self._base + quote(path)

    def _denied(self, answer: http.Answer) -> NimctlError:
        return mirror_errors.of(answer, self._base, with_key=self._user is not None)

    def _ask(self, patience: Patience) -> Manifest:
        manifest = self._document(checksums.MANIFEST, patience)
        if manifest is not None:
            files = checksums.manifest_files(manifest, self._url(checksums.MANIFEST))
            chosen = selection.choose(files, self._base, only=self._wanted.only)
        else:
            chosen = self._found(patience)
        revision = checksums.revision(chosen, self._pins)
        pinned = checksums.pinned(chosen, self._pins)
        return cached.complete(self._wanted, revision) or Manifest(self._wanted.source, revision, pinned)

    def _found(self, patience: Patience) -> tuple[File, ...]:
        """The files of a folder without a manifest, sized and pinned."""
        digests: dict[str, str] = {}
        for name in checksums.SUMS:
            if (body := self._document(name, patience)) is not None:
                digests = checksums.sums(body, self._url(name))
                break
        shown = f"the listing of {self._base}"
        names = self._listed(patience)
        listed = [listing.remote_file(path, 0, None, shown) for path in names]
        if not any(path.endswith(selection.TENSORS) for path in names):
            names = self._guessed(patience) | names
        names |= dict.fromkeys((*digests, *self._wanted.only), True)
        files = [listing.remote_file(path, 0, digests.get(path), shown) for path in names]
        chosen = selection.choose(listing.merged(files, shown), self._base, only=self._wanted.only)
        sized = _each(lambda file: self._sized(file, patience, required=names[file.path]), chosen)
        there = tuple(file for file in sized if file)
        if not self._wanted.only and not any(file.path.endswith(selection.TENSORS) for file in there):
            if there or listed:
                selection.choose(listed or there, self._base)  # says what is wrong with them
            answer = self._get(self._url("config.json"), patience)
            if answer.status in (401, 403):
                raise self._denied(answer)
            raise mirror_errors.absent(self._base, "it shows no listing, and has no file that a checkpoint has")
        return there

    def _listed(self, patience: Patience) -> dict[str, bool]:
        """Every file that the server's own listings show, with True: it must be there."""
        found: dict[str, bool] = {}
        ahead = [""]
        for _ in range(_MOST_PAGES):
            if not ahead:
                return found
            folder = ahead.pop()
            answer = self._get(self._url(folder), patience)
            if answer.status in _ABSENT and not folder:
                return {}
            if answer.status != 200:
                raise self._denied(answer)
            if not _is_page(answer):
                return found
            files, folders = mirror_pages.entries(answer.body.decode(errors="replace"), self._url(folder))
            found |= {folder + name: True for name in files}
            if folder.count("/") < _DEEPEST:
                ahead += [f"{folder}{name}/" for name in folders if not name.startswith(".")]
        raise listing.wrong_shape(self._base, f"it has more than {_MOST_PAGES} folders")

    def _guessed(self, patience: Patience) -> dict[str, bool]:
        """The names in the index, which must be there, and those that every checkpoint uses, which may be."""
        names = dict.fromkeys(KNOWN, False)
        body = self._document(INDEX, patience)
        if body is None:
            return names
        try:
            weights = json.loads(body)["weight_map"].values()
            names |= {str(name): True for name in weights}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise listing.wrong_shape(
                self._url(INDEX), f"it is no index of weights ({type(error).__name__})"
            ) from error
        return names

    def _sized(self, file: File, patience: Patience, *, required: bool) -> File | None:
        """`file` with the size that the server says, its pin kept; None where it is not there and need not be."""
        url = self._url(file.path)
        answer = self._get(url, patience, method="HEAD")
        length = answer.headers.get("content-length", "") if answer.status == 200 else ""
        if not length.isdigit() and answer.status not in (401, 404, 410):
            # No HEAD here, or no length: a single byte tells the size too.
            answer = self._get(url, patience, more={"Range": "bytes=0-0"})
            length = answer.headers.get("content-range", "").rpartition("/")[2] if answer.status == 206 else ""
        portal = answer.status in (200, 206) and _is_page(answer)  # such as a login page, in the place of any file
        if not required and (portal or answer.status in _ABSENT):
            return None
        if answer.status not in (200, 206):
            raise self._denied(answer)
        if portal or not length.isdigit():
            why = "it is a page, no file" if portal else "the server tells no size, neither for HEAD nor for a range"
            raise listing.wrong_shape(url, why)
        if pin := _pin(answer):
            with self._lock:
                self._pins[file.path] = pin
        return File(file.path, int(length), file.digest)

    def _document(self, name: str, patience: Patience) -> bytes | None:
        """The small document `name`; None where the folder has none (or a page says so in its place)."""
        answer = self._get(self._url(name), patience)
        if answer.status in _ABSENT or (answer.status == 200 and _is_page(answer)):
            return None
        if answer.status != 200:
            raise self._denied(answer)
        return answer.body

    def _get(
        self, url: str, patience: Patience, *, method: str = "GET", more: dict[str, str] | None = None
    ) -> http.Answer:
        headers = {**_PLAIN, **self._headers, **(more or {})}
        return retry.persist(lambda: self._client.get(url, headers=headers, method=method), url, patience)


def parse(uri: str, opening: Opening) -> MirrorSource:
    """The source that `uri` names: `https://[user:password@]host[:port]/folder`, then `?file=path` for single files.

    No network is used. Raises `weights-source-unsupported`.
    """
    wrong = "its host or port cannot be read"
    try:
        parts = urlsplit(uri)
        port = parts.port
        user = (unquote(parts.username), Secret(unquote(parts.password or ""))) if parts.username else None
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.fragment:
            wrong = "such an address reads https://host/folder"
            raise ValueError(wrong)
        wrong = "after a ? there may only be file=NAME"
        only = listing.selected(parts.query)
    except ValueError:  # its words may quote a part of a password
        raise NimctlError(
            "weights-source-unsupported",
            "the address is not a folder of a web server",  # not shown: where it is wrong, a password may be anywhere
            cause=wrong,
            fix="Correct it: it names the folder that holds config.json; / @ : ? # in a password are percent-encoded.",
        ) from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    base = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}/"
    return MirrorSource(base, user, only, opening)


def _each(action: Callable[[File], T], files: Iterable[File]) -> list[T]:
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="nimctl-mirror") as pool:
        return list(pool.map(action, files))


def _is_page(answer: http.Answer) -> bool:
    return answer.headers.get("content-type", "").lower().startswith(("text/html", "application/xhtml"))


def _pin(answer: http.Answer) -> str | None:
    etag = answer.headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return f"If-Match: {etag}"
    date = answer.headers.get("last-modified")
    return f"If-Unmodified-Since: {date}" if date else None
