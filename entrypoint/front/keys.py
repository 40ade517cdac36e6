"""The keys that clients must show, if any: read from a file, given to nginx, read again when it changes.

NVIDIA's NIM has no keys for inference. With `NIM_API_KEYS_FILE` a client needs one of the file's keys, as
`Authorization: Bearer KEY` (RFC 6750) or, as Anthropic's clients send it, `x-api-key: KEY`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret

# token68 of RFC 7235; eight characters are the least that is not a typing error.
_KEY = re.compile(r"[A-Za-z0-9._~+/-]{8,512}=*")
_MOST = 1000
_LARGEST_FILE = 2**20


@dataclass(frozen=True)
class Keys:
    """The keys of a file."""

    file: Path
    values: tuple[Secret, ...]


def read_keys(file: Path) -> Keys:
    """One key a line; empty lines and lines that begin with `#` do not count. Raises `config-invalid`."""
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise _unusable(file, f"it is larger than {_LARGEST_FILE} bytes")
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise _unusable(file, reason) from error
    keys: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if not _KEY.fullmatch(key):
            raise _unusable(file, f"line {number} is not a key: 8 to 512 letters, digits and ._~+/-= are expected")
        keys[key] = None
    if not 0 < len(keys) <= _MOST:
        raise _unusable(file, f"it holds {len(keys)} keys, 1 to {_MOST} are expected")
    return Keys(file, tuple(Secret(key) for key in keys))


def _unusable(file: Path, cause: str) -> NimctlError:
    return NimctlError(
        "config-invalid",
        f"NIM_API_KEYS_FILE={file} cannot be used",
        cause=cause,
        fix="Mount a file with one key a line that this user may read (mode 0440, group 0), or unset it.",
    )


def render_keys(keys: Keys) -> str:
    """nginx's maps: `$known_key` is 1 for a request with one of the keys.

    Regular expressions, because nginx's plain words do not tell upper from lower case.
    """
    patterns = [re.escape(key.reveal()).replace("/", "\\/") for key in keys.values]
    bearer = [f'    "~^(?i:bearer) +{pattern}$" 1;' for pattern in patterns]
    plain = [f'    "~^{pattern}$" 1;' for pattern in patterns]
    lines = ["map $http_x_api_key $known_x_api_key {", "    default 0;", *plain, "}"]
    lines += ["map $http_authorization $known_key {", "    default $known_x_api_key;", *bearer, "}"]
    return "\n".join(lines) + "\n"
