"""NVIDIA's NGC API, as far as public clients show how a model version is downloaded.

Known, each from a client that works with it (O, T, M, V, P: organisation, team, model, version, path of a file):

- key exchange `GET authn/token?service=ngc&scope=group/ngc:O[/T]` with Basic `$oauthtoken:KEY` gives `token` and
  `expires_in`; a key that begins with `nvapi-` may itself be the bearer [1, 2]
- listing `/v2/org/O[/team/T]/models/M/versions/V/files` with a bearer: `modelFiles[].{path,sizeInBytes,sha256_base64}`
  and `paginationInfo.totalResults` (seen in scripts that check these fields; NVIDIA documents none of it)
- addresses `/v2/org/O[/team/T]/models/M/V/files`, without "versions/": `urls[]`, `filepath[]`, `sha256_base64[]` beside
  each other, pages by `page-number` (from 1) and `page-size`, `paginationInfo.totalPages` [1];
  `?path=P` for one file [3]
- one file `/v2/org/O/team/T/models/M/versions/V/files/P` with a bearer;
  keyless `/v2/models/O/T/M/versions/V/files/P` [2]
- one file keyless `/v2/models/org/O/team/T/M/V/files?redirect=true&path=P`, which redirects [4, a resource]
- presigned addresses are on xfiles.ngc.nvidia.com [5]; errors are `requestStatus.{statusCode,statusDescription}` [1]

[1] https://github.com/ai-dynamo/modelexpress/issues/222 and its modelexpress_common/src/providers/ngc.rs
[2] https://github.com/NVIDIA/physicsnemo/pull/216
[3] https://github.com/NVIDIA/earth2studio/issues/396
[4] https://github.com/SciKit-Surgery/cmicHACKS2/blob/main/data/models/README.md
[5] https://docs.nvidia.com/nim/large-language-models/latest/deploy-behind-proxy.html

Uncertain, and imitated in the way that asks most of a client: that `/versions/V/files/P` redirects (302) rather than
answers with the bytes; whether `/v2/org/...` takes a request without key for a public model (here 401); the length of a
page (`page_size`); keyless listing (here the same document); 403 for a key without access, 404 for an unknown version;
how an encoded "/" in P is taken (here like a plain one). Some organisations answer the addresses with 400 "Org contex
missing" [1]: `hub.fail` with Status(400) on that path shows it.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from urllib.parse import unquote

from tests.lib.fault_hub.content import Content, Lie, StoredFile
from tests.lib.fault_hub.messages import Reply, Request, json_reply, redirect_reply

KEY = "nvapi-faultHubKeyWithAccess"
_SCOPED = r"/v2/org/(?P<org>[^/]+)(?:/team/(?P<team>[^/]+))?/models/(?P<model>[^/]+)"
_OPEN_LONG = r"/v2/models/org/(?P<org>[^/]+)(?:/team/(?P<team>[^/]+))?/(?P<model>[^/]+)"
_OPEN = r"/v2/models/(?P<org>[^/]+)(?:/(?P<team>[^/]+))?/(?P<model>[^/]+)"
_LISTING = r"/versions/(?P<version>[^/]+)(?:/files(?:/(?P<path>.+))?)?"
_ADDRESSES = r"/(?P<version>[^/]+)/files"
_ROUTES = [
    (re.compile(start + end), kind, start != _SCOPED)
    for start in (_SCOPED, _OPEN_LONG, _OPEN)
    for end, kind in ((_LISTING, "listing"), (_ADDRESSES, "addresses"))
]


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model; `name` is "org/team/model" or "org/model"."""

    name: str
    version: str
    files: Mapping[str, StoredFile]
    key: str
    public: bool


class Ngc:
    """The token service and the routes below `/v2/`."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], ModelVersion] = {}
        self.keys: set[str] = set()  # valid keys without access to any model
        self.page_size = 500
        self.storage = "xfiles"  # the listener that downloads are redirected to
        self._tokens: dict[str, str] = {}  # token -> the key it was given for
        self._numbers = count(1)

    def add(
        self, name: str, version: str, files: Mapping[str, Content], lies: Mapping[str, Lie], key: str, public: bool
    ) -> None:
        owner = f"{name}:{version}"
        stored = {path: StoredFile(owner, path, files[path], True, lies.get(path, Lie())) for path in sorted(files)}
        self.versions[name, version] = ModelVersion(name, version, stored, key, public)

    def expire_tokens(self) -> None:
        """Every bearer given so far is refused from now on."""
        self._tokens.clear()

    def answer(self, request: Request) -> Reply | None:
        """None: the address is not NGC's."""
        if request.raw_path == "/token":
            return replace(self._token(request), role="token")
        for pattern, kind, keyless in _ROUTES:
            if match := pattern.fullmatch(request.raw_path):
                parts = {name: unquote(value) if value else None for name, value in match.groupdict().items()}
                return self._version(request, parts, kind, keyless)
        return None

    def _valid_keys(self) -> set[str]:
        return {version.key for version in self.versions.values()} | self.keys

    def _token(self, request: Request) -> Reply:
        scheme, _, value = (request.authorization or "").partition(" ")
        user, _, key = _plain(value).partition(":")
        if scheme != "Basic" or user != "$oauthtoken" or key not in self._valid_keys():
            return _failure(401, "UNAUTHORIZED", "Authentication required")
        if not request.query.get("scope", "").startswith("group/ngc"):
            return _failure(400, "BAD_REQUEST", "scope is missing")
        token = f"ngc-token-{next(self._numbers)}"
        self._tokens[token] = key
        return json_reply(200, {"token": token, "expires_in": 900})

    def _key_of(self, request: Request) -> str | None:
        bearer = request.bearer or ""
        if bearer.startswith("nvapi-") and bearer in self._valid_keys():
            return bearer
        return self._tokens.get(bearer)

    def _version(self, request: Request, parts: Mapping[str, Any], kind: str, keyless: bool) -> Reply:
        name = "/".join(part for part in (parts["org"], parts["team"], parts["model"]) if part)
        found = self.versions.get((name, parts["version"]))
        key = self._key_of(request)
        if key is None and (request.authorization or not keyless):
            return _failure(401, "UNAUTHORIZED", "Authentication required")
        if found is None:
            return _failure(404, "NOT_FOUND", f"{name}:{parts['version']} is not found")
        if key is None and not found.public:
            return _failure(401, "UNAUTHORIZED", "Authentication required")
        if key not in (None, found.key) and not found.public:
            return _failure(403, "ACCESS_DENIED", "User is not authorized")
        path = request.query.get("path") if kind == "addresses" else parts["path"]
        if path is not None:
            return self._file(request, found, path, as_document=kind == "addresses")
        if kind == "addresses":
            return self._addresses(request, list(found.files.values()))
        if not request.raw_path.rstrip("/").endswith("/files"):
            return _success({"modelVersion": _summary(found)})
        return self._listing(request, found)

    def _listing(self, request: Request, version: ModelVersion) -> Reply:
        page, about = self._page(request, list(version.files.values()))
        rows = [{"path": file.path, "sizeInBytes": file.size, "sha256_base64": _checksum(file)} for file in page]
        return _success({"modelVersion": _summary(version), "modelFiles": rows, "paginationInfo": about})

    def _addresses(self, request: Request, files: Sequence[StoredFile]) -> Reply:
        page, about = self._page(request, files)
        document = {
            "urls": [request.links.presigned(self.storage, file) for file in page],
            "filepath": [file.path for file in page],
            "sha256_base64": [_checksum(file) for file in page],
            "paginationInfo": about,
        }
        return _success(document)

    def _file(self, request: Request, version: ModelVersion, path: str, *, as_document: bool) -> Reply:
        file = version.files.get(path)
        if file is None:
            return replace(_failure(404, "NOT_FOUND", f"{path} is not found"), role="resolve")
        if as_document and request.query.get("redirect") != "true":
            return replace(self._addresses(request, [file]), role="resolve", file=file)
        return replace(redirect_reply(302, request.links.presigned(self.storage, file)), file=file)

    def _page(self, request: Request, files: Sequence[StoredFile]) -> tuple[Sequence[StoredFile], dict[str, int]]:
        size = min(int(request.query.get("page-size", self.page_size)), self.page_size)
        number = max(1, int(request.query.get("page-number", "1")))
        pages = max(1, -(-len(files) // size))
        about = {"index": number, "size": size, "totalPages": pages, "totalResults": len(files)}
        return files[(number - 1) * size : number * size], about


def _summary(version: ModelVersion) -> dict[str, Any]:
    files = version.files.values()
    return {
        "versionId": version.version,
        "status": "UPLOAD_COMPLETE",
        "totalFileCount": len(files),
        "totalSizeInBytes": sum(file.size for file in files),
    }


def _checksum(file: StoredFile) -> str:
    return base64.b64encode(bytes.fromhex(file.sha256)).decode()


def _plain(basic: str) -> str:
    try:
        return base64.b64decode(basic, validate=True).decode("utf-8", "replace")
    except ValueError:
        return ""


def _success(document: dict[str, Any]) -> Reply:
    return json_reply(200, {"requestStatus": {"statusCode": "SUCCESS", "requestId": "fault-hub"}, **document})


def _failure(status: int, code: str, text: str) -> Reply:
    about = {"statusCode": code, "statusDescription": text, "requestId": "fault-hub"}
    return json_reply(status, {"requestStatus": about})
