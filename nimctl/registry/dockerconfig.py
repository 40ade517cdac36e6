"""Docker's `config.json`: where logins are kept, read and written so that the docker CLI and nimctl share them.

Format: https://docs.docker.com/reference/cli/docker/login/#credential-stores
"""

import base64
import binascii
import contextlib
import json
import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.registry.login import TOKEN_USER, Login
from nimctl.registry.reference import DOCKER_HUB

_HUB_KEY = "https://index.docker.io/v1/"


def config_folder() -> Path:
    """Docker's configuration folder: DOCKER_CONFIG, else `~/.docker`."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def server_key(registry: str) -> str:
    """The name under which docker files the login of `registry`."""
    return _HUB_KEY if registry == DOCKER_HUB else registry


def read(folder: Path) -> dict[str, Any]:
    """The document in `folder/config.json`; empty where there is none. Raises `credentials-unwritable`."""
    path = folder / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _problem(path, f"it cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from None
    try:
        document = json.loads(text) if text.strip() else {}
    except ValueError as error:
        # The parser's own exception holds the whole text, logins included.
        raise _problem(path, f"it is not JSON: {error}") from None
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), dict | None) for key in ("auths", "credHelpers")
    ):
        raise _problem(path, "it is not the JSON object that docker writes")
    return document


def helper_for(document: Mapping[str, Any], registry: str) -> str | None:
    """The credential helper that keeps the login of `registry`, None for the file itself."""
    helper = (document.get("credHelpers") or {}).get(server_key(registry)) or document.get("credsStore")
    return str(helper) if helper else None


def login_in(document: Mapping[str, Any], registry: str) -> Login | None:
    """User and key that the file itself holds for `registry`. An entry that cannot be decoded counts as none."""
    auths: Mapping[str, Any] = document.get("auths") or {}
    wanted = server_key(registry)
    names = [wanted, *(name for name in auths if name != wanted and _hostname(name) == _hostname(wanted))]
    for name in names:
        entry = auths.get(name)
        if isinstance(entry, dict) and (login := _decoded(entry)):
            return login
    return None


def _decoded(entry: Mapping[str, Any]) -> Login | None:
    if token := entry.get("identitytoken"):
        return Login(TOKEN_USER, Secret(str(token)))
    user, key = str(entry.get("username") or ""), str(entry.get("password") or "")
    with contextlib.suppress(ValueError, binascii.Error):
        decoded = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
        if ":" in decoded:
            user, _, key = decoded.rstrip("\0").partition(":")
    return Login(user, Secret(key)) if user and key else None


def _hostname(name: str) -> str:
    return urlsplit(name if "://" in name else f"https://{name}").netloc


def with_login(document: Mapping[str, Any], registry: str, login: Login | None) -> dict[str, Any]:
    """The document with `registry` logged in; without `login` the entry only says that a helper knows it."""
    entry: dict[str, str] = {}
    if login:
        entry = {"auth": login.encoded.reveal()}
    return {**document, "auths": {**(document.get("auths") or {}), server_key(registry): entry}}


def write(folder: Path, document: Mapping[str, Any]) -> Path:
    """Replace `folder/config.json` atomically, mode 0600, owner kept; the file that was written.

    Raises `credentials-unwritable`, and leaves the old file as it was.
    """
    path = folder / "config.json"
    fresh: Path | None = None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = Path(os.path.realpath(path))  # a link (dotfile managers make them) stays a link
        fresh = path.with_name(f".config.json-{secrets.token_hex(8)}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent="\t"))
            if os.geteuid() == 0:
                owner = (path if path.exists() else path.parent).stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        if fresh:
            with contextlib.suppress(OSError):
                fresh.unlink()
        raise _problem(path, f"it cannot be written: {error.strerror}") from None
    return path


def _problem(path: Path, cause: str) -> NimctlError:
    return NimctlError(
        "credentials-unwritable",
        f"Docker's configuration {path} cannot be used",
        cause=cause,
        fix=f"Repair or remove it (`ls -l {shlex.quote(str(path))}`), or name another folder in DOCKER_CONFIG.",
    )
