"""Keys among the variables, and in the files that they name: collected to be masked, used nowhere."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from entrypoint.settings.variables import ACCESS_FAMILIES
from nimctl.core.errors import NimctlError
from nimctl.core.secret import KEY_VARIABLES, Secret, is_secret_name, keys_in_words

# Addresses that may have a password in them.
_ADDRESSES = (
    "NIM_MODEL_PATH",
    "NIM_MODEL_NAME",
    "NIM_FT_MODEL",
    "NIM_REPOSITORY_OVERRIDE",
    "NIM_OTEL_EXPORTER_OTLP_ENDPOINT",
    "HF_ENDPOINT",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
)
_PASSWORDS = re.compile(r"://[^/@\s\"']*:([^/@\s\"']+)@")
_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
# Those of object stores are listed here, as importing who reads them would cost more than all of this.
_STORES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SECRET_FILES = tuple(f"{name}_FILE" for name in (*KEY_VARIABLES, *_STORES))


def collect(environ: Mapping[str, str], words: Sequence[str]) -> tuple[Secret, ...]:
    """Every key we can find out, so that it can be masked; a key file that cannot be read is an error.

    `words` are the engine's arguments, which may hold the address of a draft model.
    """
    values = [environ[name] for name in KEY_VARIABLES if environ.get(name)]
    values += [
        value
        for name, value in environ.items()
        if name.startswith(tuple(ACCESS_FAMILIES)) and is_secret_name(name) and name not in _SECRET_FILES
    ]
    values += [_password(environ.get(name, "")) for name in _ADDRESSES]
    named = [value for name, value in environ.items() if name.startswith("NIM_")]  # drafts and whatever else
    values += [password for word in (*words, *named) for password in _PASSWORDS.findall(word)]
    values += keys_in_words(words)
    values += [value for name in _HEADERS for value in _header_values(environ.get(name, ""))]
    for name in _SECRET_FILES:
        if not (path := environ.get(name)):
            continue
        try:
            values.append(Path(path).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise NimctlError(
                "config-invalid",
                f"{name}={path} cannot be read",
                cause=str(error),
                fix="Mount the key file so that this user may read it (mode 0440, group 0).",
            ) from error
    return tuple(Secret(value) for value in values if value)


def _header_values(headers: str) -> list[str]:
    """The values in `name=value,name=value`, as they stand and decoded.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/#specifying-headers-via-environment-variables
    """
    values = [pair.partition("=")[2].strip() for pair in headers.split(",")]
    return [form for value in values if len(value) >= 6 for form in dict.fromkeys((value, unquote(value)))]


def _password(address: str) -> str:
    """The password in `scheme://user:password@host`, empty where there is none."""
    try:
        return urlsplit(address).password or ""
    except ValueError:
        return ""
