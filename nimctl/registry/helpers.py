"""Docker's credential helpers: programs `docker-credential-NAME` that speak JSON on stdin and stdout.

Protocol: https://github.com/docker/docker-credential-helpers#development. Whatever a helper prints may hold a key, so
that none of it is ever shown: known words of failures are told in words of ours, others by the exit code alone.
"""

import json
import os
import re
import shutil
import signal

from nimctl.core.command import without_keys
from nimctl.core.errors import NimctlError
from nimctl.core.exchange import Answer, exchange
from nimctl.core.secret import Secret
from nimctl.registry.login import Login

TIMEOUT = 10.0  # seconds; a keyring that asks a person for its password gets no longer
LIMIT = 1 << 20  # bytes of an answer; tokens of cloud registries have some thousand
# Helpers that keep any registry's login in a keyring of this machine; others fetch keys of one cloud.
KEYRINGS = ("secretservice", "pass", "osxkeychain", "desktop", "wincred")
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")
_NOT_FOUND = "credentials not found"
# What helpers print when they fail, and what it means.
_KNOWN = (
    (
        r"pass.{0,20}not initiali[sz]ed|try \"?pass init|password store is empty",
        "pass has no password store yet: `pass init GPG-ID`",
    ),
    (
        r"no secret key|decryption failed|no pinentry|inappropriate ioctl|operation cancelled|bad passphrase",
        "gpg could not use its secret key: it is missing, locked, or has nobody to ask for its passphrase",
    ),
    (r"unusable public key|no public key", "gpg has no usable key for the password store"),
    (r"executable file not found|command not found", "the keyring's own program is not on the PATH"),
    (r"d-?bus|org\.freedesktop\.secrets|x11|\$display", "no keyring service answers on this session's D-Bus"),
    (r"not implemented|unsupported", "it cannot store keys: it fetches those of one cloud"),
    (r"no space left|disk quota", "its disk is full"),
    (r"permission denied|read-only file system", "it may not write its keyring"),
)


def store(helper: str, server: str, login: Login) -> None:
    """Hand the key to the helper, on stdin. Raises `credentials-unwritable`."""
    document = json.dumps({"ServerURL": server, "Username": login.username, "Secret": login.password.reveal()})
    _call(helper, "store", document, "could not store the key")


def get(helper: str, server: str) -> Login | None:
    """User and key that the helper holds for `server`, None if it holds none. Raises `credentials-unwritable`."""
    what = "could not be asked for the key"
    answer = _call(helper, "get", server, what, not_found_is_none=True)
    if answer is None:
        return None
    try:
        document = json.loads(answer.stdout)
        user, key = document["Username"], document["Secret"]
        if isinstance(user, str) and isinstance(key, str):
            return Login(user, Secret(key)) if key else None  # pass answers so for what it does not hold
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise _error(helper, what, "its answer is not the JSON of a credential helper")


def erase(helper: str, server: str) -> bool:
    """Let the helper forget `server`; False where it holds nothing. Raises `credentials-unwritable`.

    It is asked first, because some fail where there is nothing to forget:
    https://github.com/docker/docker-credential-helpers/issues/220
    """
    if get(helper, server) is None:
        return False
    _call(helper, "erase", server, "could not forget the key")
    return True


def installed() -> tuple[str, ...]:
    """The keyring helpers on this machine's PATH; the one that docker would choose comes first."""
    found = [name for name in KEYRINGS if shutil.which(f"docker-credential-{name}")]
    return tuple(sorted(found, key=lambda name: name != default()))


def default() -> str | None:
    """The helper that docker uses where its configuration names none and holds no login; None where it is not there.

    https://docs.docker.com/reference/cli/docker/login/#default-behavior
    """
    name = "pass" if shutil.which("pass") else "secretservice"
    return name if shutil.which(f"docker-credential-{name}") else None


def _call(helper: str, verb: str, question: str, what: str, *, not_found_is_none: bool = False) -> Answer | None:
    """The answer of a helper that ended well. Raises `credentials-unwritable`."""
    if not _NAME.fullmatch(helper):
        raise _error(helper, "is not a program name", "a helper is named by the part after docker-credential-")
    argv = [f"docker-credential-{helper}", verb]
    answer = exchange(argv, question, env=without_keys(os.environ), timeout=TIMEOUT, limit=LIMIT)
    if answer.code == 0:
        return answer
    said = f"{answer.stdout}\n{answer.stderr}".lower()
    if not_found_is_none and answer.code is not None and _NOT_FOUND in said:
        return None
    raise _error(helper, what, _cause(answer, said))


def _cause(answer: Answer, said: str) -> str:
    if answer.missing:
        return "there is no such program on the PATH"
    if answer.flooded:
        return f"it printed more than {LIMIT} bytes, and was ended"
    if answer.timed_out or answer.code is None:
        return f"it did not answer within {TIMEOUT:g} s; it may be waiting for a password"
    ended = f"it ended with code {answer.code}"
    if answer.code < 0:
        names = {one.value: one.name for one in signal.Signals}
        ended = f"it was ended by {names.get(-answer.code, f'signal {-answer.code}')}"
    known = next((words for pattern, words in _KNOWN if re.search(pattern, said)), "")
    return f"{ended}: {known}" if known else f"{ended}; what it printed is not shown, as a key may be in it"


def _error(helper: str, what: str, cause: str) -> NimctlError:
    return NimctlError(
        "credentials-unwritable",
        f"docker-credential-{helper} {what}",
        cause=cause,
        fix="Repair or install the helper, or remove it from credsStore and credHelpers in Docker's config.json. "
        f"`docker-credential-{helper} list` shows whether it works, without any key.",
    )
