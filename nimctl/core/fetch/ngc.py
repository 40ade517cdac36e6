"""Models of NVIDIA's catalog: `ngc://org/team/model:version`.

Guests first: what NGC hands out to everybody is fetched without a key, which then need not be valid either. Otherwise
the key, or the token that it is exchanged for, is sent to NGC, which redirects to signed addresses.
Catalog: https://docs.nvidia.com/ngc/gpu-cloud/ngc-catalog-user-guide/index.html
"""

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

from nimctl.core.cache import CachePaths, Part
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import cached, http, listing, ngc_errors, ngc_files, retry, selection
from nimctl.core.fetch.access import Access
from nimctl.core.fetch.address import without_secrets
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.ngc_login import Login
from nimctl.core.fetch.protocol import RangeStream
from nimctl.core.fetch.retry import Patience
from nimctl.core.secret import Secret

SCHEME = "ngc://"
PATIENCE = Patience()
_LATEST = "latest"
_ADDRESS = re.compile(
    r"(?P<model>[A-Za-z0-9_.\-]+(?:/[A-Za-z0-9_.\-]+){1,2})(?::(?P<version>[A-Za-z0-9_.+\-]{1,128}))?(?:\?(?P<query>.*))?"
)
_VERSION = re.compile(r"[A-Za-z0-9_.+\-]{1,128}")
_PAGE_SIZE = 1000
_MOST_PAGES = 200
_PROBES = 8  # requests at once for sizes that no list tells
_CHECKSUMS = "checksums.blake3"


@dataclass(frozen=True)
class _Route:
    """A way to one model: its address, and whether the key goes with it."""

    base: str
    keyed: bool


class NgcSource:
    """One model at one version of the catalog at `access.ngc_endpoint`. May be used by many threads."""

    part: Part = "ngc"
    in_place: None = None

    def __init__(
        self,
        model: str,
        version: str | None,
        only: tuple[str, ...],
        *,
        paths: CachePaths,
        access: Access,
        client: http.Client,
        refresh: bool,
        patience: Patience,
    ) -> None:
        org, *team, name = model.split("/")
        self._model = model
        # A NIM writes "_" for the dots of a model's name in its cache; so what it left is found, and what we leave too.
        self.repo = "/".join((org, *team, name.replace(".", "_")))
        self._asked_version = version or _LATEST
        source = f"{SCHEME}{model}" + (f":{version}" if version else "")
        source += "?" + "&".join(f"file={quote(path)}" for path in only) if only else ""
        self._wanted = cached.Wanted(
            paths.repo(self.repo, self.part), source, self._asked_version, self._asked_version != _LATEST, only
        )
        self._access = access
        self._client = client
        self._refresh = refresh
        self._patience = patience
        self._login: Login | None = None
        if access.ngc_key is not None:
            self._login = Login(access.ngc_auth_endpoint, "/".join((org, *team)), access.ngc_key, client)
        team_path = "".join(f"/team/{part}" for part in team)
        api = access.ngc_endpoint
        self._public = _Route(f"{api}/v2/models/{model}", keyed=False)
        self._member = _Route(f"{api}/v2/org/{org}{team_path}/models/{name}", keyed=True)
        self._route = self._member if self._login else self._public
        self._version: str | None = None
        self._targets: dict[str, tuple[http.Target, _Route, Secret | None]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"NgcSource({self._wanted.source!r})"

    @property
    def refs(self) -> tuple[str, ...]:
        """`latest` where no version was asked for: what it meant when it was fetched. Nothing otherwise."""
        return () if self._wanted.is_revision else (_LATEST,)

    def resolve(self) -> Manifest:
        """Pin the version and list the files that the engine needs; see `cached.resolve` for what the cache decides.

        Raises `weights-*`, `key-missing`, `key-refused`, `terms-not-accepted`, `clock-wrong`, `tls-untrusted`,
        `proxy-refused`.
        """
        manifest = cached.resolve(
            self._wanted, self._ask, self._patience, refresh=self._refresh, offline=self._access.offline
        )
        self._version = manifest.revision
        return manifest

    def open_range(self, file: File, start: int, stop: int) -> RangeStream:
        """The bytes [start, stop) of `file` at the resolved version; see `protocol.Remote`.

        A token that has ended is renewed once, and what guests are refused is asked for with the key once.
        """
        for _ in range(3):
            target, route, token = self._target(file)
            try:
                return self._client.open_range(target, start, stop)
            except http.Denied as denied:
                if not self._try_otherwise(file, denied.answer, route, token):
                    raise ngc_errors.of(denied.answer, self._asked(file.path)) from denied
                refusal = denied.answer
        raise ngc_errors.of(refusal, self._asked(file.path))

    def _try_otherwise(self, file: File, answer: http.Answer, route: _Route, token: Secret | None) -> bool:
        """After a refusal: True where another way is open now."""
        if self._login is None or not listing.same_origin(answer.url, self._access.ngc_endpoint):
            return False
        if not route.keyed and answer.status in (401, 403, 404):
            self._route = self._member
        elif answer.status != 401 or token is None or self._login.renewed(token, self._patience) is None:
            return False
        with self._lock:
            if file.path in self._targets and self._targets[file.path][1:] == (route, token):
                del self._targets[file.path]
        return True

    def _target(self, file: File) -> tuple[http.Target, _Route, Secret | None]:
        version = self._version or self.resolve().revision
        route = self._route
        with self._lock:
            known = self._targets.get(file.path)
        if known is not None:
            return known
        headers, token = self._headers(route, self._patience)
        made = (http.Target(_file_url(route, version, file.path), size=file.size, headers=headers), route, token)
        with self._lock:
            return self._targets.setdefault(file.path, made)

    def _headers(self, route: _Route, patience: Patience) -> tuple[dict[str, str], Secret | None]:
        token = self._login.bearer(patience) if route.keyed and self._login else None
        return http.bearer(token), token

    def _ask(self, patience: Patience) -> Manifest:
        version = self._asked_version if self._wanted.is_revision else self._latest(patience)
        self._version = version
        if manifest := cached.complete(self._wanted, version):
            return manifest
        shown = f"the file list of {self._model}:{version}"
        files = listing.merged(self._files(version, shown, patience), shown)
        return Manifest(self._wanted.source, version, selection.choose(files, self._model, only=self._wanted.only))

    def _latest(self, patience: Patience) -> str:
        shown = f"the versions of {self._model}"
        answer = self._first_granted("", patience)
        if answer.status != 200:
            raise ngc_errors.of(answer, self._asked())
        document = answer.json()
        ngc_files.succeeded(document, shown)
        model = listing.member(document, "model", dict, shown)
        if model.get("canGuestDownload") is False and self._login is None:
            raise ngc_errors.key_missing(self._asked(), "NGC says that guests may not download it")
        version = model.get("latestVersionIdStr")
        if not version:
            raise ngc_errors.unknown_version(self._asked(), "it has no version yet", self._versions(patience))
        if not isinstance(version, str) or not _VERSION.fullmatch(version) or version in (".", "..", _LATEST):
            raise listing.wrong_shape(shown, f"the latest is {version!r:.100}")
        return version

    def _versions(self, patience: Patience) -> list[str]:
        """The versions that exist, for an error message: nothing where NGC does not tell them."""
        try:
            answer = self._first_granted("/versions", patience)
            return ngc_files.versions(answer.json(), "the versions") if answer.status == 200 else []
        except NimctlError:
            return []

    def _files(self, version: str, shown: str, patience: Patience) -> list[File]:
        """Every file of the version. Raises the error of a refusal."""
        first = self._first_granted(_page_of(version), patience)
        if first.status in (400, 401) and self._route.keyed and (paths := self._by_checksums(version, shown, patience)):
            return self._sized(paths, version, patience)
        if first.status == 404 and (versions := self._versions(patience)) and version not in versions:
            raise ngc_errors.unknown_version(self._asked(), "", versions)
        if first.status != 200:
            raise ngc_errors.of(first, self._asked())
        page = ngc_files.page(first.json(), shown)
        files, unsized = self._all_pages(page, version, shown, patience)
        return [*files, *self._sized(unsized, version, patience)]

    def _all_pages(
        self, page: ngc_files.Page, version: str, shown: str, patience: Patience
    ) -> tuple[list[File], list[str]]:
        """The files of all pages, and the paths that came without sizes.

        Whether pages count from 0 or from 1 is not documented, so the last number is asked for unless all are there.
        """
        files, unsized = dict.fromkeys(page.files), dict.fromkeys(page.unsized)
        if page.pages > _MOST_PAGES:
            raise listing.wrong_shape(shown, f"it has {page.pages} pages")
        for number in range(1, page.pages + 1 if page.pages > 1 else 1):
            if page.total is not None and len(files) + len(unsized) >= page.total:
                break
            answer = self._get(self._route, f"{_page_of(version)}&page-number={number}", patience)
            if answer.status != 200 and number == page.pages:
                break  # counted from 0, there is no such page
            if answer.status != 200:
                raise ngc_errors.of(answer, self._asked())
            more = ngc_files.page(answer.json(), shown)
            files |= dict.fromkeys(more.files)
            unsized |= dict.fromkeys(more.unsized)
        if page.total is not None and len(files) + len(unsized) < page.total:
            raise listing.wrong_shape(shown, f"it names {len(files) + len(unsized)} of {page.total} files")
        return list(files), list(unsized)

    def _by_checksums(self, version: str, shown: str, patience: Patience) -> tuple[str, ...]:
        """The paths in the list of checksums that lies beside the files: some organisations (`nim`) list no others."""
        answer = self._get(self._route, f"/versions/{version}/files/{_CHECKSUMS}", patience)
        return ngc_files.checksum_paths(answer.body.decode(errors="replace"), shown) if answer.status == 200 else ()

    def _sized(self, paths: Sequence[str], version: str, patience: Patience) -> list[File]:
        """Files that no list tells the size of: each is asked for its first byte."""

        def sized(path: str) -> File:
            headers, _ = self._headers(self._route, patience)
            url = _file_url(self._route, version, path)
            size = retry.persist(_size_of(self._client, url, headers), f"the size of {path}", patience)
            if isinstance(size, http.Answer):
                raise ngc_errors.of(size, self._asked(path))
            return File(path, size)

        if not paths:
            return []
        with ThreadPoolExecutor(_PROBES) as pool:
            return list(pool.map(sized, paths))

    def _first_granted(self, what: str, patience: Patience) -> http.Answer:
        """The answer to `what` as a guest, else with the key if there is one; sets the way that all else goes."""
        self._route = self._public
        answer = self._get(self._public, what, patience)
        if answer.status == 200 or self._login is None:
            return answer
        self._route = self._member
        return self._get(self._member, what, patience)

    def _get(self, route: _Route, what: str, patience: Patience) -> http.Answer:
        """The answer to `what` below the model's address, with a token that is renewed once where it has ended."""
        headers, token = self._headers(route, patience)
        answer = self._once(route.base + what, headers, patience)
        if answer.status == 401 and token and self._login and (fresh := self._login.renewed(token, patience)):
            answer = self._once(route.base + what, http.bearer(fresh), patience)
        return answer

    def _once(self, url: str, headers: dict[str, str], patience: Patience) -> http.Answer:
        wanted = {**headers, "Accept": "application/json"}
        return retry.persist(lambda: self._client.get(url, headers=wanted), f"what NGC says of {self._model}", patience)

    def _asked(self, path: str | None = None) -> ngc_errors.Asked:
        version = self._version or self._asked_version
        endpoint = without_secrets(self._access.ngc_endpoint)
        return ngc_errors.Asked(endpoint, self._model, version, self._access.ngc_key, path)


def parse(
    uri: str,
    paths: CachePaths,
    access: Access,
    client: http.Client,
    *,
    refresh: bool = False,
    patience: Patience = PATIENCE,
) -> NgcSource:
    """The source that `uri` names; no network is used.

    `ngc://org/model` or `ngc://org/team/model`, then `:version` (the latest where left out), then `?file=path` for
    single files. `refresh` asks NGC what the latest version is now. Raises `weights-source-unsupported`.
    """
    match = _ADDRESS.fullmatch(uri.removeprefix(SCHEME))
    try:
        if match is None or not uri.startswith(SCHEME):
            raise ValueError("such an address reads ngc://org/team/model:version or ngc://org/model:version")
        if "--" in match["model"] or match["version"] in (".", ".."):
            raise ValueError("NGC has no such names")
        only = listing.selected(match["query"] or "")
        paths.repo(match["model"], "ngc")
    except ValueError as error:
        raise NimctlError(
            "weights-source-unsupported",
            f"{without_secrets(uri)!r:.200} is not a model of NVIDIA's catalog",
            cause=str(error),
            fix="Correct the address, or pass a folder.",
        ) from error
    version = None if match["version"] == _LATEST else match["version"]
    return NgcSource(
        match["model"], version, only,
        paths=paths, access=access, client=client, refresh=refresh, patience=patience,
    )  # fmt: skip


def _page_of(version: str) -> str:
    return f"/versions/{quote(version)}/files?page-size={_PAGE_SIZE}"


def _file_url(route: _Route, version: str, path: str) -> str:
    return f"{route.base}/versions/{quote(version)}/files/{quote(path)}"


def _size_of(client: http.Client, url: str, headers: dict[str, str]) -> Callable[[], int | http.Answer]:
    return lambda: client.size(url, headers=headers)
