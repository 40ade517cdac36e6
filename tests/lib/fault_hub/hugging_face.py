"""The Hugging Face Hub's API, as far as a download needs it.

Known from the public client, https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub (2.4.0):

- model info: `sha`, `siblings[].rfilename`, with `?blobs=true` also `size`, `blobId`, `lfs` (hf_api.py, ModelInfo)
- tree: `type`, `path`, `oid`, `size`, `lfs.{oid,size,pointerSize}`; `oid` is the name that git gives the file, and for
  LFS the name of the pointer (hf_api.py, RepoFile); pages by `Link: <...>; rel="next"` (utils/_pagination.py)
- /resolve/: `X-Repo-Commit`, `X-Linked-Etag`, `X-Linked-Size` on the first answer, which for LFS files is a redirect to
  another host; `ETag` for the others (file_download.py)
- `X-Error-Code`: RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo; a repository that is missing or private
  answers 401 without a token, and a wrong token 401 "Invalid credentials in Authorization header" (utils/_http.py)

Uncertain, and therefore choices: whether a gated repository's listing is open (`gated_listing`; False: it is); length
of a page (`page_size`); the relative 307 to /api/resolve-cache/ that small files have had since 2025
(`small_files_redirect`, off by default); the exact error texts. Xet answers (`X-Xet-Hash`) are left out, since a
client without Xet is what is tested here.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, unquote

from tests.lib.fault_hub.content import Content, Lie, StoredFile
from tests.lib.fault_hub.messages import Reply, Request, content_reply, json_reply, redirect_reply

LFS_PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.pkl", "*.zip")
LFS_SIZE = 10 * 1024**2  # bytes: https://huggingface.co/docs/hub/en/repositories-getting-started
TOKEN = "hf_faultHubTokenWithAccess"
_MODEL = r"(?P<repo>[^/]+/[^/]+)"
_INFO = re.compile(rf"/api/models/{_MODEL}(?:/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(rf"/api/models/{_MODEL}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
_RESOLVE = re.compile(rf"/{_MODEL}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_CACHED = re.compile(rf"/api/resolve-cache/models/{_MODEL}/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class Repository:
    """One model. Every commit stays; a branch or tag moves to the newest that was given its name."""

    name: str
    gated: str | None = None  # "auto" or "manual"
    private: bool = False
    gated_listing: bool = False
    token: str = TOKEN
    revisions: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, StoredFile]] = field(default_factory=dict)

    def commit_of(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.revisions.get(revision)


class HuggingFace:
    """The routes below `/api/models/` and `/org/name/resolve/`."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.tokens: set[str] = set()  # of users without access to anything gated or private
        self.page_size = 1000
        self.small_files_redirect = False
        self.storage = "cdn"  # the listener that LFS files are redirected to

    def add(
        self, name: str, files: Mapping[str, Content], lies: Mapping[str, Lie], revision: str, **options: Any
    ) -> str:
        """Store a commit and point `revision` at it."""
        repository = self.repositories.setdefault(name, Repository(name))
        for option, value in options.items():
            setattr(repository, option, value)
        stored = {
            path: StoredFile(name, path, content, lfs=_is_lfs(path, content), lie=lies.get(path, Lie()))
            for path, content in sorted(files.items())
        }
        state = json.dumps([name, [[file.path, file.sha256, file.size] for file in stored.values()]])
        commit = hashlib.sha1(state.encode(), usedforsecurity=False).hexdigest()
        repository.commits[commit] = stored
        repository.revisions[revision] = commit
        return commit

    def answer(self, request: Request) -> Reply | None:
        """None: the address is not the Hub's."""
        routes: tuple[tuple[re.Pattern[str], Callable[..., Reply]], ...] = (
            (_TREE, self._tree),
            (_CACHED, self._cached),
            (_INFO, self._info),
            (_RESOLVE, self._resolve),
        )
        for pattern, route in routes:
            if match := pattern.fullmatch(request.raw_path):
                return self._checked(request, route, {k: v and unquote(v) for k, v in match.groupdict().items()})
        return None

    def _checked(self, request: Request, route: Callable[..., Reply], parts: dict[str, Any]) -> Reply:
        role = "resolve" if route == self._resolve else "api"
        repository = self.repositories.get(parts["repo"])
        if (refusal := self._refusal(request, repository, content=role == "resolve")) is not None or repository is None:
            return replace(refusal or _error(404, "RepoNotFound", "Repository not found"), role=role)
        revision = parts.pop("revision") or "main"
        commit = repository.commit_of(revision)
        if commit is None:
            return replace(_error(404, "RevisionNotFound", f"Invalid rev id: {revision}"), role=role)
        return route(request, repository, commit, parts.get("path"))

    def _refusal(self, request: Request, repository: Repository | None, *, content: bool) -> Reply | None:
        known = {other.token for other in self.repositories.values()} | self.tokens
        token = request.bearer
        if request.authorization is not None and token not in known:
            return _error(401, None, "Invalid credentials in Authorization header")
        if repository is None or (repository.private and token != repository.token):
            if token is None:
                return _error(401, "RepoNotFound", "Invalid username or password.")
            return _error(404, "RepoNotFound", "Repository not found")
        if repository.gated and token != repository.token and (content or repository.gated_listing):
            text = f"Access to model {repository.name} is restricted"
            if token is None:
                return _error(401, "GatedRepo", f"{text}. You must have access to it and be authenticated.")
            return _error(403, "GatedRepo", f"{text} and you are not in the authorized list.")
        return None

    def _info(self, request: Request, repository: Repository, commit: str, path: str | None) -> Reply:
        blobs = request.query.get("blobs", "").lower() in ("1", "true")
        document = {
            "_id": commit[:24],
            "id": repository.name,
            "modelId": repository.name,
            "author": repository.name.partition("/")[0],
            "sha": commit,
            "private": repository.private,
            "gated": repository.gated or False,
            "disabled": False,
            "tags": [],
            "siblings": [_sibling(file, blobs) for file in repository.commits[commit].values()],
        }
        return json_reply(200, document)

    def _tree(self, request: Request, repository: Repository, commit: str, path: str | None) -> Reply:
        query = request.query
        entries = _entries(repository.commits[commit], path, query.get("recursive", "").lower() in ("1", "true"))
        if not entries and path:
            return _error(404, "EntryNotFound", f"{path} does not exist on {commit}", commit)
        first = int(query.get("cursor", "0"))
        last = first + int(query.get("limit", self.page_size))
        reply = json_reply(200, entries[first:last], X_Repo_Commit=commit)
        if last >= len(entries):
            return reply
        others = "&".join(f"{quote(name)}={quote(value)}" for name, value in query.items() if name != "cursor")
        here = (
            f"{request.links.url_of(request.listener)}{request.raw_path}?{others}{'&' if others else ''}cursor={last}"
        )
        return reply.with_headers(Link=f'<{here}>; rel="next"')

    def _resolve(self, request: Request, repository: Repository, commit: str, path: str) -> Reply:
        file = repository.commits[commit].get(path)
        if file is None:
            return replace(_error(404, "EntryNotFound", "Entry not found", commit), role="resolve")
        if file.lfs:
            linked = {"X_Linked_ETag": f'"{file.sha256}"', "X_Linked_Size": str(file.size)}
            where = request.links.presigned(self.storage, file)
            reply = redirect_reply(302, where, X_Repo_Commit=commit, ETag=f'"{file.blob_id}"', **linked)
            return replace(reply, file=file)
        if self.small_files_redirect:
            where = (
                f"/api/resolve-cache/models/{repository.name}/{commit}/{quote(path, safe='')}?etag=%22{file.blob_id}%22"
            )
            return replace(redirect_reply(307, where, X_Repo_Commit=commit), file=file)
        return self._cached(request, repository, commit, path)

    def _cached(self, request: Request, repository: Repository, commit: str, path: str) -> Reply:
        file = repository.commits[commit].get(path)
        if file is None or file.lfs:
            return _error(404, "EntryNotFound", "Entry not found", commit)
        return content_reply(request, file, f'"{file.blob_id}"', X_Repo_Commit=commit)


def _is_lfs(path: str, content: Content) -> bool:
    return content.size > LFS_SIZE or any(fnmatchcase(path, pattern) for pattern in LFS_PATTERNS)


def _lfs(file: StoredFile) -> dict[str, Any]:
    return {"size": file.size, "pointerSize": len(file.pointer)}


def _sibling(file: StoredFile, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": file.path}
    lfs = {"lfs": {"sha256": file.sha256, **_lfs(file)}} if file.lfs else {}
    return {"rfilename": file.path, "size": file.size, "blobId": file.blob_id, **lfs}


def _entries(files: Mapping[str, StoredFile], below: str | None, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{below.rstrip('/')}/" if below else ""
    found: dict[str, dict[str, Any]] = {}
    for path, file in files.items():
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)) if recursive else range(1, min(2, len(parts))):
            folder = prefix + "/".join(parts[:depth])
            oid = hashlib.sha1(folder.encode(), usedforsecurity=False).hexdigest()
            found.setdefault(folder, {"type": "directory", "oid": oid, "size": 0, "path": folder})
        if recursive or len(parts) == 1:
            lfs = {"lfs": {"oid": file.sha256, **_lfs(file)}} if file.lfs else {}
            found[path] = {"type": "file", "oid": file.blob_id, "size": file.size, "path": path, **lfs}
    return list(found.values())


def _error(status: int, code: str | None, message: str, commit: str | None = None) -> Reply:
    return json_reply(status, {"error": message}, X_Error_Code=code, X_Error_Message=message, X_Repo_Commit=commit)
