"""Docker's credential helpers: programs `docker-credential-NAME` that speak JSON on stdin and stdout.

Protocol: https://github.com/docker/docker-credential-helpers#development
"""

import json
import re

from nimctl.core.command import Result, run
from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret, redact
from nimctl.registry.login import Login

TIMEOUT = 10.0  # seconds; a keyring that asks a person for its password gets no longer
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")
_NOT_FOUND = "credentials not found"


def store(helper: str, server: str, login: Login) -> None:
    """Hand the key to the helper, on stdin. Raises `credentials-unwritable`."""
    document = json.dumps({"ServerURL": server, "Username": login.username, "Secret": login.password.reveal()})
    result = _call(helper, "store", document)
    if not result.ok:
        raise _failure(helper, result, "could not store the key", [login.password])


def get(helper: str, server: str) -> Login | None:
    """User and key that the helper holds for `server`, None if it holds none. Raises `credentials-unwritable`."""
    result = _call(helper, "get", server)
    if not result.ok:
        if _NOT_FOUND in (result.stdout + result.stderr).lower():
            return None
        raise _failure(helper, result, "could not be asked for the key")
    try:
        document = json.loads(result.stdout)
        user, key = document["Username"], document["Secret"]
        if isinstance(user, str) and isinstance(key, str):
            return Login(user, Secret(key)) if key else None
    except (ValueError, KeyError, TypeError):
        pass
    # What it printed is not shown: a key may be in it.
    raise _error(helper, "could not be asked for the key", "its answer is not the JSON of a credential helper")


def _call(helper: str, verb: str, stdin: str) -> Result:
    if not _NAME.fullmatch(helper):
        raise _error(helper, "is not a program name", "a helper is named by the part after docker-credential-")
    return run([f"docker-credential-{helper}", verb], stdin=stdin, timeout=TIMEOUT)


def _failure(helper: str, result: Result, what: str, secrets: list[Secret] | None = None) -> NimctlError:
    if result.missing:
        return _error(helper, what, "there is no such program on the PATH")
    if result.timed_out:
        return _error(helper, what, f"it did not answer within {TIMEOUT:g} s; it may be waiting for a password")
    said = " ".join(redact(result.stderr, secrets or []).split())[:200]
    return _error(helper, what, f"it ended with code {result.code}{f': {said}' if said else ''}")


def _error(helper: str, what: str, cause: str) -> NimctlError:
    return NimctlError(
        "credentials-unwritable",
        f"docker-credential-{helper} {what}",
        cause=cause,
        fix="Repair or install the helper, or remove it from credsStore and credHelpers in Docker's config.json.",
    )
