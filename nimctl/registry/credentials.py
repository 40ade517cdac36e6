"""Logging in to a registry: prove the key, then keep it where docker keeps it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nimctl.core import keys
from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.registry import dockerconfig, helpers
from nimctl.registry.client import authorization, connect
from nimctl.registry.denial import KEYS_PAGE, NVIDIA, denial
from nimctl.registry.dockerconfig import config_folder
from nimctl.registry.login import Login
from nimctl.registry.transport import send

__all__ = ["DEFAULT_REGISTRY", "DEFAULT_USER", "Stored", "config_folder", "login", "stored", "stored_or_key"]

DEFAULT_REGISTRY = NVIDIA
# NVIDIA's user name for every API key: https://docs.nvidia.com/ngc/latest/ngc-private-registry-user-guide.html
DEFAULT_USER = "$oauthtoken"
_REGISTRY = re.compile(r"[A-Za-z0-9.\-]+(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?")


@dataclass(frozen=True)
class Stored:
    """Where a login is kept now: the file or `docker-credential-NAME`; `plaintext` when anyone who reads it has it."""

    where: str
    plaintext: bool
    warnings: tuple[str, ...] = ()


def login(registry: str, user: str, key: Secret, *, config_dir: Path) -> Stored:
    """Prove to `registry` that `user` and `key` are accepted, then store them as `docker login` does.

    Nothing is stored for a key that is refused, and never in another place than the configuration says. Raises
    `usage`, `key-missing`, `key-refused`, `image-pull-failed` (no answer), `credentials-unwritable`.
    """
    _check(registry, user, key)
    document = dockerconfig.read(config_dir)
    proven = Login(user, key)
    warnings = _proven(registry, proven)
    if helper := dockerconfig.helper_for(document, registry):
        helpers.store(helper, dockerconfig.server_key(registry), proven)
        dockerconfig.write(config_dir, dockerconfig.with_login(document, registry, None))
        return Stored(f"docker-credential-{helper}", plaintext=False, warnings=warnings)
    path = dockerconfig.write(config_dir, dockerconfig.with_login(document, registry, proven))
    told = f"The key is stored unencrypted in {path}; a credential helper (credsStore) would keep it in a keyring."
    return Stored(str(path), plaintext=True, warnings=(*warnings, told))


def stored(registry: str, config_dir: Path) -> Login | None:
    """User and key for `registry` from the three kinds of store, as docker looks them up; None without a login.

    Raises `credentials-unwritable` for a file or a helper that cannot be read.
    """
    document = dockerconfig.read(config_dir)
    helper = dockerconfig.helper_for(document, registry)
    found = helpers.get(helper, dockerconfig.server_key(registry)) if helper else None
    return found or dockerconfig.login_in(document, registry)


def stored_or_key(registry: str, config_dir: Path, environment: Mapping[str, str]) -> tuple[Login | None, bool]:
    """The login to pull with, and whether it was made from the NGC key in `environment`.

    A stored login comes first; the key stands in for one that is missing, as in a CI job, and goes to NVIDIA's
    registry alone. Raises as `stored` and `keys.find_key` do.
    """
    found = stored(registry, config_dir)
    if found is not None or registry != NVIDIA:
        return found, False
    key = keys.find_key(keys.NGC, environment)
    return (Login(DEFAULT_USER, key), True) if key else (None, False)


def _check(registry: str, user: str, key: Secret) -> None:
    if not _REGISTRY.fullmatch(registry):
        raise NimctlError(
            "usage",
            f"{registry!r} is not a registry",
            cause="a registry is a host name, with a port where it needs one",
            fix=f"For example: nimctl login {DEFAULT_REGISTRY}",
        )
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


def _proven(registry: str, credentials: Login) -> tuple[str, ...]:
    """Warnings after `registry` accepted the key. Raises if it did not."""
    warnings = []
    if registry == NVIDIA and not credentials.password.reveal().startswith("nvapi-"):
        warnings.append(
            "The key does not begin with nvapi-, as Personal API Keys do; NIM does not support legacy API keys. "
            f"Make a Personal API Key at {KEYS_PAGE}"
        )
    endpoint = connect(registry)
    if endpoint.challenge is None:
        return (*warnings, f"{registry} asks for no login, so the key could not be checked.")
    opened = authorization(endpoint, credentials)
    answer = send("GET", f"{endpoint.base}/v2/", opened)
    if answer.status != 200:
        raise denial(registry, answer, credentials)
    return tuple(warnings)
