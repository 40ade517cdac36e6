"""Logging in to a registry and out of it: prove the key, then keep it where docker keeps it."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nimctl.core import keys
from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.registry import dockerconfig, helpers
from nimctl.registry.client import connect, prove
from nimctl.registry.denial import KEYS_PAGE, NVIDIA, denial
from nimctl.registry.dockerconfig import config_folder
from nimctl.registry.login import Login
from nimctl.registry.reference import DOCKER_HUB
from nimctl.registry.transport import send

__all__ = [
    "DEFAULT_REGISTRY",
    "DEFAULT_USER",
    "Removed",
    "Stored",
    "config_folder",
    "login",
    "logout",
    "stored",
    "stored_or_key",
]

DEFAULT_REGISTRY = NVIDIA
# NVIDIA's user name for every API key: https://docs.nvidia.com/ngc/latest/ngc-private-registry-user-guide.html
DEFAULT_USER = "$oauthtoken"
_STORES = "https://docs.docker.com/reference/cli/docker/login/#credential-stores"
_REGISTRY = re.compile(r"[A-Za-z0-9.\-]+(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?")


@dataclass(frozen=True)
class Stored:
    """Where a login is kept now: the file or `docker-credential-NAME`; `plaintext` when anyone who reads it has it.

    `warnings` are sentences; `offer` is the line of configuration that would keep the key in a keyring of this host.
    """

    where: str
    plaintext: bool
    warnings: tuple[str, ...] = ()
    offer: str | None = None


@dataclass(frozen=True)
class Removed:
    """What a logout took away: the places that held a login, if any did; and what opens the registry still."""

    where: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def login(
    registry: str, user: str, key: Secret, *, config_dir: Path, environment: Mapping[str, str] | None = None
) -> Stored:
    """Prove to `registry` that `user` and `key` are accepted, then store them as `docker login` does.

    Where the registry gives an identity token for them, that is stored in their place. A login in `environment`
    that comes before a stored one is a warning. Nothing is stored for a key that is refused, and never in another
    place than the configuration says. Raises `usage`, `key-missing`, `key-refused`,
    `image-rate-limited`, `image-pull-failed` (no answer), `credentials-unwritable`.
    """
    registry = _registry(registry)
    _check(registry, user, key)
    dockerconfig.read(config_dir)  # broken: said before the key is sent
    proven, warnings = _proven(registry, Login(user, key))
    warnings += _before(registry, environment or {})
    with dockerconfig.locked(config_dir, make=True):
        return _stored(registry, user, proven, warnings, config_dir)


def _stored(registry: str, user: str, proven: Login, warnings: tuple[str, ...], config_dir: Path) -> Stored:
    document = dockerconfig.read(config_dir)
    helper = dockerconfig.helper_for(document, registry)
    if helper is None and (default := _default(document)):
        try:
            kept = _keep(registry, proven, {**document, "credsStore": default}, default, config_dir)
            return replace(kept, warnings=warnings)
        except NimctlError as error:  # nobody named it, so that the file is no other place than was said
            warnings = (*warnings, f"{error.message}: {error.cause}.")
    if helper:
        return replace(_keep(registry, proven, document, helper, config_dir), warnings=warnings)
    path = dockerconfig.write(config_dir, dockerconfig.with_login(document, registry, proven, user))
    told, offer = _plaintext(registry, path)
    return Stored(str(path), plaintext=True, warnings=(*warnings, told), offer=offer)


def logout(registry: str, *, config_dir: Path, environment: Mapping[str, str]) -> Removed:
    """Forget the login of `registry` wherever `docker login` or `login` may have put it, old kinds of entries included.

    Raises `usage`, `credentials-unwritable`.
    """
    registry = _registry(registry)
    if not _REGISTRY.fullmatch(registry):
        raise _no_registry(registry, "logout")
    with dockerconfig.locked(config_dir, make=False):
        removed = _removed(registry, config_dir)
    return Removed(removed, _still_open(registry, environment))


def _removed(registry: str, config_dir: Path) -> tuple[str, ...]:
    document = dockerconfig.read(config_dir)
    names = dockerconfig.server_keys(document, registry)
    removed = []
    if helper := dockerconfig.helper_for(document, registry):
        gone = [helpers.erase(helper, name) for name in names]
        removed += [f"docker-credential-{helper}"] if any(gone) else []
    elif default := _default(document):
        with suppress(NimctlError):
            removed += [f"docker-credential-{default}"] if helpers.erase(default, names[0]) else []
    after = dockerconfig.without_login(document, names)
    if after["auths"] != (document.get("auths") or {}):
        held = any(entry for name, entry in document["auths"].items() if name in names)
        path = dockerconfig.write(config_dir, after)
        removed += [str(path)] if held else []
    return tuple(removed)


def stored_or_key(registry: str, config_dir: Path, environment: Mapping[str, str]) -> tuple[Login | None, bool]:
    """The login to pull with, and whether it was made from the NGC key in `environment`.

    First that of DOCKER_AUTH_CONFIG, then a stored one; the NGC key stands in for one that is missing, as in a CI job,
    and goes to NVIDIA's registry alone. Raises as `stored` and `keys.find_key` do, and `config-invalid`.
    """
    found = dockerconfig.login_for_this_process(registry, environment) or stored(registry, config_dir)
    if found is not None or registry != NVIDIA:
        return found, False
    key = keys.find_key(keys.NGC, environment)
    return (Login(DEFAULT_USER, key), True) if key else (None, False)


def stored(registry: str, config_dir: Path) -> Login | None:
    """User and key for `registry` from the stores, as docker looks them up; None without a login.

    Where a helper is configured, what the file itself still holds does not count, as for docker.
    Raises `credentials-unwritable` for a file or a helper that cannot be read.
    """
    document = dockerconfig.read(config_dir)
    if helper := dockerconfig.helper_for(document, registry):
        return helpers.get(helper, dockerconfig.server_key(registry))
    if default := _default(document):
        with suppress(NimctlError):
            return helpers.get(default, dockerconfig.server_key(registry))
    return dockerconfig.login_in(document, registry)


def _default(document: Mapping[str, Any]) -> str | None:
    """The keyring that docker uses without being told; one that does not work keeps nobody from anything."""
    return None if dockerconfig.knows_logins(document) else helpers.default()


def _keep(registry: str, proven: Login, document: Mapping[str, Any], helper: str, config_dir: Path) -> Stored:
    with dockerconfig.replacing(config_dir, dockerconfig.with_login(document, registry, None)):
        helpers.store(helper, dockerconfig.server_key(registry), proven)
    return Stored(f"docker-credential-{helper}", plaintext=False)


def _registry(text: str) -> str:
    """Docker Hub's other names are its one name."""
    return DOCKER_HUB if text in ("index.docker.io", "registry-1.docker.io") else text


def _plaintext(registry: str, path: Path) -> tuple[str, str | None]:
    """What is said of a key that lies in the file, and the line that would keep it in a keyring of this host."""
    told = f"The key is stored unencrypted in {path}."
    there = helpers.installed()
    if not there:
        return f"{told} A credential helper would keep it in a keyring; none is installed: {_STORES}", None
    # One registry's own helper: credsStore would hide the logins of all others that lie in the file.
    offer = f'"credHelpers": {{"{dockerconfig.server_key(registry)}": "{there[0]}"}}'
    first = " (once: `pass init GPG-ID`)" if there[0] == "pass" else ""
    told += f" docker-credential-{there[0]} is installed{first}: add {offer} to that file, and log in again."
    return told, offer


def _still_open(registry: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    found = _before(registry, environment)
    if registry == NVIDIA and keys.is_present(keys.NGC, environment):
        found += (f"An NGC key is in the environment, which opens {registry} without a login.",)
    return found


def _before(registry: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """What is said of a login that comes before every stored one."""
    try:
        if dockerconfig.login_for_this_process(registry, environment):
            return (
                f"{dockerconfig.VARIABLE} is set and holds a login for {registry}, which comes before a stored one.",
            )
    except NimctlError as error:
        return (f"{error.message}: {error.cause}.",)
    return ()


def _no_registry(registry: str, verb: str = "login") -> NimctlError:
    return NimctlError(
        "usage",
        f"{registry!r} is not a registry",
        cause="a registry is a host name, with a port where it needs one",
        fix=f"For example: nimctl {verb} {DEFAULT_REGISTRY}",
    )


def _check(registry: str, user: str, key: Secret) -> None:
    if not _REGISTRY.fullmatch(registry):
        raise _no_registry(registry)
    if not user or ":" in user or not user.isprintable():
        raise NimctlError(
            "usage",
            f"{user!r} is not a user name",
            cause="a user name is not empty and holds no colon",
            fix=f"For {NVIDIA} it is {DEFAULT_USER}, in single quotes, whoever you are.",
        )
    value = key.reveal()
    if not value:
        raise NimctlError(
            "key-missing", "no key was given", cause="the key is empty", fix=f"Make one at {KEYS_PAGE} and try again."
        )
    if any(c.isspace() or not c.isprintable() for c in value):
        raise NimctlError(
            "key-refused",
            "this is not a key",
            cause="it holds spaces, line ends or control characters, as after an incomplete copy",
            fix="Copy the key again, in one line.",
        )


def _proven(registry: str, credentials: Login) -> tuple[Login, tuple[str, ...]]:
    """What is to be stored, and warnings, after `registry` accepted the key. Raises if it did not."""
    warnings = []
    if registry == NVIDIA and not credentials.password.reveal().startswith("nvapi-"):
        warnings.append(
            "The key does not begin with nvapi-, as Personal API Keys do; NIM does not support legacy API keys. "
            f"Make a Personal API Key at {KEYS_PAGE}"
        )
    endpoint = connect(registry)
    if endpoint.challenge is None:
        return credentials, (*warnings, f"{registry} asks for no login, so the key could not be checked.")
    opened, identity = prove(endpoint, credentials)
    answer = send("GET", f"{endpoint.base}/v2/", opened)
    if answer.status != 200:
        raise denial(registry, answer, credentials)
    return identity or credentials, tuple(warnings)
