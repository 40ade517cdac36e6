"""Docker's `config.json`: where logins are kept, read and written so that the docker CLI and nimctl share them.

Format: https://docs.docker.com/reference/cli/docker/login/#credential-stores, and what the CLI does:
https://github.com/docker/cli/tree/master/cli/config
"""

import base64
import binascii
import contextlib
import fcntl
import json
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.registry.login import TOKEN_USER, Login
from nimctl.registry.reference import DOCKER_HUB

_HUB_KEY = "https://index.docker.io/v1/"
# Logins for this process alone, as GitLab gives them to its jobs; the CLI reads it first since 28.3:
# https://github.com/docker/cli/pull/6008
VARIABLE = "DOCKER_AUTH_CONFIG"


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
    """The credential helper that keeps the login of `registry`, None for the file itself.

    An empty name in `credHelpers` means the file, whatever `credsStore` says.
    """
    own = document.get("credHelpers") or {}
    key = server_key(registry)
    helper = own[key] if key in own else document.get("credsStore")
    return str(helper) if helper else None


def knows_logins(document: Mapping[str, Any]) -> bool:
    """Whether the file holds logins or says who keeps them; where it does not, docker uses the host's own keyring."""
    return any(document.get(key) for key in ("auths", "credsStore", "credHelpers"))


def login_in(document: Mapping[str, Any], registry: str) -> Login | None:
    """User and key that the file itself holds for `registry`. An entry that cannot be decoded counts as none.

    The entry of this very name outweighs those of old kinds (`https://nvcr.io/v1/`), even where it is empty.
    """
    auths: Mapping[str, Any] = document.get("auths") or {}
    wanted = server_key(registry)
    names = [wanted] if wanted in auths else _names(auths, registry)
    for name in names:
        entry = auths.get(name)
        if isinstance(entry, dict) and (login := _decoded(entry)):
            return login
    return None


def login_for_this_process(registry: str, environment: Mapping[str, str]) -> Login | None:
    """User and key for `registry` in the variable DOCKER_AUTH_CONFIG. Raises `config-invalid`."""
    text = environment.get(VARIABLE, "")
    if not text.strip():
        return None
    try:
        document = json.loads(text)
        auths = document.get("auths")
        if not isinstance(auths, dict | None):
            raise TypeError
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise NimctlError(
            "config-invalid",
            f"{VARIABLE} cannot be used",
            cause='it is not a JSON object of the form {"auths": {"REGISTRY": {"auth": "..."}}}',
            fix=f"Correct it, or unset it: `unset {VARIABLE}`.",
        ) from None
    return login_in({"auths": auths or {}}, registry)


def _decoded(entry: Mapping[str, Any]) -> Login | None:
    if token := entry.get("identitytoken"):
        return Login(TOKEN_USER, Secret(str(token)))
    user, key = str(entry.get("username") or ""), str(entry.get("password") or "")
    with contextlib.suppress(ValueError, binascii.Error):
        decoded = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
        if ":" in decoded:
            user, _, key = decoded.rstrip("\0").partition(":")
    return Login(user, Secret(key)) if user and key else None


def _names(auths: Mapping[str, Any], registry: str) -> list[str]:
    """The names under which older versions of docker filed the login of `registry`, as they lie in the file."""
    if registry == DOCKER_HUB:
        return [name for name in (_HUB_KEY,) if name in auths]
    return [name for name in auths if _hostname(name) == registry]


def _hostname(name: str) -> str:
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]


def server_keys(document: Mapping[str, Any], registry: str) -> tuple[str, ...]:
    """Every name under which a login of `registry` may be kept, the one of today first.

    Beside today's name: that name as a URL, which `docker logout` tries too, and what the file holds of old kinds.
    """
    today = server_key(registry)
    old = () if registry == DOCKER_HUB else (f"http://{registry}", f"https://{registry}")
    return tuple(dict.fromkeys((today, *old, *_names(document.get("auths") or {}, registry))))


def with_login(document: Mapping[str, Any], registry: str, login: Login | None, user: str = "") -> dict[str, Any]:
    """The document with `registry` logged in; without `login` the entry only says that a helper knows it.

    `user` is who an identity token was given to, which docker notes beside it.
    """
    entry: dict[str, str] = {}
    if login and login.username == TOKEN_USER:
        entry = {"auth": Login(user, Secret("")).encoded.reveal()} if user else {}
        entry["identitytoken"] = login.password.reveal()
    elif login:
        entry = {"auth": login.encoded.reveal()}
    return {**document, "auths": {**(document.get("auths") or {}), server_key(registry): entry}}


def without_login(document: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The document without the entries of these names."""
    auths = {name: entry for name, entry in (document.get("auths") or {}).items() if name not in names}
    return {**document, "auths": auths}


def write(folder: Path, document: Mapping[str, Any]) -> Path:
    """Replace `folder/config.json` atomically, mode 0600, owner kept; the file that was written.

    Raises `credentials-unwritable`, and leaves the old file as it was.
    """
    with replacing(folder, document) as path:
        return path


@contextmanager
def replacing(folder: Path, document: Mapping[str, Any]) -> Iterator[Path]:
    """As `write`, in two steps: what is done inside happens between the writing and the atomic replacement.

    So a disk that is full, or a folder that is closed, is found before anything else is changed, and an error inside
    leaves the old file as it was.
    """
    path = folder / "config.json"
    fresh: Path | None = None
    try:
        with _told(path):
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
        yield path
        with _told(path):
            fresh.replace(path)
    finally:
        if fresh:
            with contextlib.suppress(OSError):
                fresh.unlink()


@contextmanager
def locked(folder: Path, *, make: bool) -> Iterator[None]:
    """Alone with the file among all processes of nimctl: what is read inside is still so when it is replaced.

    Docker itself locks nothing, and neither do folders whose filesystem has no locks; `make` makes one that is missing.
    Raises `credentials-unwritable`.
    """
    if make:
        with _told(folder / "config.json"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = None
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _problem(path, f"it cannot be written: {error.strerror}") from None


def _problem(path: Path, cause: str) -> NimctlError:
    return NimctlError(
        "credentials-unwritable",
        f"Docker's configuration {path} cannot be used",
        cause=cause,
        fix=f"Repair or remove it (`ls -l {shlex.quote(str(path))}`), or name another folder in DOCKER_CONFIG.",
    )
