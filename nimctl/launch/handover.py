"""What of the caller's environment goes with a run so that it can fetch its weights, and what stays behind. Pure.

Addresses and switches go as variables. Keys go as files, in the form that the libraries of the object stores read by
themselves, so that no key is in `docker inspect`. Nothing else goes: a run inherits no environment by accident.
"""

import ipaddress
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from nimctl.core.keys import NAMES as KEY_NAMES
from nimctl.core.keys import Reader, find_key, read_key_file
from nimctl.core.secret import Secret
from nimctl.launch.asked import guarded, weights_of
from nimctl.launch.model import EnvVar, Mount, RunOptions

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
OVERRIDE = "NIM_REPOSITORY_OVERRIDE"
CA_FILE = "SSL_CERT_FILE"
_CA_TARGET = "/run/nimctl-ca.pem"
_ANY_SOURCE = (OVERRIDE, *PROXIES)
_BY_SCHEME: Mapping[str, tuple[str, ...]] = {
    "hf": ("HF_ENDPOINT", "HF_HUB_OFFLINE"),
    "ngc": ("NGC_API_ENDPOINT", "NGC_API_SCHEME", "NGC_AUTH_ENDPOINT", "HF_HUB_OFFLINE"),
    "s3": (
        "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT",
        "AWS_SKIP_SIGNATURE", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_REQUEST_PAYER", "AWS_EC2_METADATA_DISABLED",
    ),
    "gs": ("GOOGLE_BASE_URL", "GOOGLE_SKIP_SIGNATURE"),
}  # fmt: skip
# Each names a file in the container; its content is made here of whatever form the caller's keys have.
AWS_KEYS = "AWS_SHARED_CREDENTIALS_FILE"
GOOGLE_KEYS = "GOOGLE_APPLICATION_CREDENTIALS"
_KEYS_OF = {"s3": AWS_KEYS, "gs": GOOGLE_KEYS}
_AWS_LINES = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
}
_LOOPBACK_MATTERS = (
    *PROXIES, OVERRIDE, "HF_ENDPOINT", "NGC_API_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT",
    "GOOGLE_BASE_URL",
)  # fmt: skip


def passed(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The variables of `environment` that a run may need; which of them it gets depends on its weights."""
    names = {CA_FILE, *_ANY_SOURCE, *(name for names in _BY_SCHEME.values() for name in names)}
    return tuple((name, environment[name]) for name in sorted(names) if environment.get(name, "").strip())


def secret(name: str, environment: Mapping[str, str], read: Reader = read_key_file) -> Secret | None:
    """The content of the key file `name` for a run; None where the caller has no such key. Raises as `find_key`."""
    if name in KEY_NAMES:
        return find_key(name, environment, read)
    if name == AWS_KEYS:
        return _aws(environment)
    if name == GOOGLE_KEYS:
        return _google(environment, read)
    return None


def present(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The key files of object stores that can be made of `environment`."""
    return tuple(name for name in (AWS_KEYS, GOOGLE_KEYS) if secret(name, environment) is not None)


def _aws(environment: Mapping[str, str]) -> Secret | None:
    """Static keys as a credentials file: https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html"""
    found = {line: environment.get(name, "").strip() for line, name in _AWS_LINES.items()}
    if not (found["aws_access_key_id"] and found["aws_secret_access_key"]):
        return None
    return Secret("[default]\n" + "".join(f"{line} = {value}\n" for line, value in found.items() if value))


def _google(environment: Mapping[str, str], read: Callable[[Path], str]) -> Secret | None:
    if key := environment.get("GOOGLE_SERVICE_ACCOUNT_KEY", "").strip():
        return Secret(key)
    for name in (GOOGLE_KEYS, "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"):
        if path := environment.get(name, "").strip():
            try:
                return Secret(read(Path(path)))
            except (OSError, ValueError):
                return None
    return None


def schemes(options: RunOptions) -> tuple[str, ...]:
    """The kinds of source that the run may fetch from, its mirror included; none where its weights are local."""
    recipe = options.recipe
    if recipe is None or recipe.runs != "ours":
        return ()
    address = weights_of(options) or recipe.weights
    if "://" not in address or address.startswith("builtin://"):
        return ()
    mirror = dict(options.surroundings).get(OVERRIDE, "")
    return tuple(uri.partition("://")[0] for uri in (address, mirror) if "://" in uri)


def key_names(options: RunOptions) -> tuple[str, ...]:
    """The key files of object stores that this run gets."""
    wanted = {_KEYS_OF[scheme] for scheme in schemes(options) if scheme in _KEYS_OF}
    return tuple(name for name in options.secrets_present if name in wanted)


def variables(options: RunOptions) -> list[EnvVar]:
    """The variables that this run gets; an address with a password is a secret, handed over by name."""
    found = schemes(options)
    if not found:
        return []
    names = {*_ANY_SOURCE, *(name for scheme in found for name in _BY_SCHEME.get(scheme, ()))}
    ca_file = [EnvVar(CA_FILE, mount.target, "the environment", mount.why) for mount in mounts(options)]
    return ca_file + [
        EnvVar(
            name, Secret(value) if _has_password(value) else guarded(name, value), "the environment", "to fetch weights"
        )
        for name, value in options.surroundings
        if name in names
    ]


def mounts(options: RunOptions) -> tuple[Mount, ...]:
    """The caller's own file of trusted CAs, where a container has to see it; a process reads it where it is."""
    path = dict(options.surroundings).get(CA_FILE, "")
    if options.runtime != "docker" or not schemes(options) or not path.startswith("/") or ":" in path:
        return ()
    return (Mount(path, _CA_TARGET, True, "whom to trust when weights are fetched"),)


def notes(options: RunOptions, own: list[EnvVar]) -> tuple[str, ...]:
    """What may surprise: an address of this host that a container cannot reach, a password that others can read."""
    if options.runtime != "docker":
        return ()
    said = []
    for variable in own:
        value = variable.value.reveal() if isinstance(variable.value, Secret) else variable.value
        if isinstance(variable.value, Secret):
            said.append(
                f"password-in-environment: {variable.name} holds a password, and whoever may use docker can read it in "
                "`docker inspect`; a proxy that knows this host needs none."
            )
        if variable.name in _LOOPBACK_MATTERS and _is_loopback(value):
            said.append(
                f"loopback-endpoint: {variable.name} names this host as {urlsplit(value).hostname}, which is the "
                "container itself to whatever runs in it; give an address that both can reach."
            )
    return tuple(said)


def _has_password(value: str) -> bool:
    try:
        return bool(urlsplit(value).password)
    except ValueError:
        return False


def _is_loopback(value: str) -> bool:
    try:
        host = urlsplit(value).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
