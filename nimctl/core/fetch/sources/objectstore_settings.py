"""How an object store is reached: keys, region and endpoint out of the AWS_* and GOOGLE_* variables.

Names and order: https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html and
https://cloud.google.com/docs/authentication/application-default-credentials. Values of keys never leave `options`.
"""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret

Scheme = Literal["s3", "gs"]
_STATIC = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
}
# A role that is borrowed: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
_ROLE = {
    "AWS_WEB_IDENTITY_TOKEN_FILE": "web_identity_token_file",
    "AWS_ROLE_ARN": "role_arn",
    "AWS_ROLE_SESSION_NAME": "role_session_name",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "container_credentials_relative_uri",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "container_credentials_full_uri",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "container_authorization_token_file",
}
_S3_OTHERS = {
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "virtual_hosted_style_request",
    "AWS_REQUEST_PAYER": "request_payer",
    "AWS_METADATA_ENDPOINT": "metadata_endpoint",
    "AWS_STS_ENDPOINT": "sts_endpoint",
}
_GOOGLE = {
    "GOOGLE_SERVICE_ACCOUNT": "service_account",
    "GOOGLE_SERVICE_ACCOUNT_PATH": "service_account",
    "GOOGLE_SERVICE_ACCOUNT_KEY": "service_account_key",
    "GOOGLE_APPLICATION_CREDENTIALS": "application_credentials",
    "GOOGLE_BEARER_TOKEN": "bearer_token",
}
_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Settings:
    """What the library is told: `options` by its own names (with keys, so never shown), and what follows from them.

    `with_key`: requests are signed. `may_borrow`: where the bucket is not public, the machine's own role may be asked
    for. `endpoint` is the user's own; None means the vendor's. `ca_file` holds further trusted CAs.
    """

    options: Mapping[str, str] = field(repr=False)
    with_key: bool
    may_borrow: bool
    endpoint: str | None
    ca_file: str | None
    variables: str


def read(scheme: Scheme, variables: Mapping[str, Secret]) -> Settings:
    """The settings in `variables`. Raises `config-invalid`."""
    values = {name: secret.reveal() for name, secret in variables.items()}
    return _s3(values) if scheme == "s3" else _gs(values)


def _s3(values: Mapping[str, str]) -> Settings:
    options = {ours: values[name] for name, ours in _S3_OTHERS.items() if name in values}
    keys = {ours: values[name] for name, ours in _STATIC.items() if name in values}
    role = {ours: values[name] for name, ours in _ROLE.items() if name in values}
    if ("access_key_id" in keys) != ("secret_access_key" in keys):
        given, lacking = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")[:: 1 if "access_key_id" in keys else -1]
        raise _wrong(f"AWS_{given} is set and AWS_{lacking} is not", "Set both, or neither.")
    region = values.get("AWS_REGION") or values.get("AWS_DEFAULT_REGION")
    if not keys and not role:
        keys, of_profile = _profile(values)
        region = region or of_profile
    endpoint = values.get("AWS_ENDPOINT_URL_S3") or values.get("AWS_ENDPOINT_URL") or values.get("AWS_ENDPOINT")
    endpoint = _endpoint("AWS_ENDPOINT_URL", endpoint)
    if endpoint:
        # Both names, as the library prefers what its own reading of the second one says.
        options |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
    unsigned = values.get("AWS_SKIP_SIGNATURE", "").lower() in _TRUE
    with_key = bool(keys or role) and not unsigned
    no_machine = values.get("AWS_EC2_METADATA_DISABLED", "").lower() in _TRUE
    # A store of someone else's has no use for this machine's role.
    ours = endpoint is None or "AWS_METADATA_ENDPOINT" in values
    return Settings(
        options | {"region": region or "us-east-1"} | ((keys or role) if with_key else {}),
        with_key=with_key,
        may_borrow=not with_key and not unsigned and not no_machine and ours,
        endpoint=endpoint,
        ca_file=values.get("AWS_CA_BUNDLE"),
        variables="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    )


def _gs(values: Mapping[str, str]) -> Settings:
    keys = {ours: values[name] for name, ours in _GOOGLE.items() if name in values}
    for name in ("service_account", "application_credentials"):
        if name in keys and not Path(keys[name]).is_file():
            raise _wrong(f"{keys[name]} is not a file", "Mount the credentials file, and name it as it is called here.")
    endpoint = _endpoint("GOOGLE_BASE_URL", values.get("GOOGLE_BASE_URL"))
    unsigned = values.get("GOOGLE_SKIP_SIGNATURE", "").lower() in _TRUE
    with_key = bool(keys) and not unsigned
    return Settings(
        ({"base_url": endpoint} if endpoint else {}) | (keys if with_key else {}),
        with_key=with_key,
        may_borrow=not with_key and not unsigned and endpoint is None,
        endpoint=endpoint,
        ca_file=None,
        variables="GOOGLE_APPLICATION_CREDENTIALS",
    )


def _profile(values: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """Keys and region of AWS_PROFILE (or `default`) in the two files of the AWS tools; nothing where they are not.

    A named profile must hold keys: what borrows a role or asks a program for one is not understood here.
    """
    name = values.get("AWS_PROFILE") or "default"
    home = Path("~/.aws").expanduser()
    credentials = _ini(Path(values.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials"))
    config = _ini(Path(values.get("AWS_CONFIG_FILE") or home / "config"))
    section = "default" if name == "default" else f"profile {name}"
    found = {**config.get(section, {}), **credentials.get(name, {})}
    keys = {ours: found[variable.lower()] for variable, ours in _STATIC.items() if found.get(variable.lower())}
    if {"access_key_id", "secret_access_key"} <= set(keys):
        return keys, found.get("region")
    if "AWS_PROFILE" in values:
        raise _wrong(
            f"the profile {name!r} of AWS_PROFILE holds no access key in the files of the AWS tools",
            "Mount ~/.aws/credentials or set AWS_SHARED_CREDENTIALS_FILE; for a role, set AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN instead (`aws configure export-credentials --format env`).",
        )
    return {}, found.get("region")


def _ini(path: Path) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except (configparser.Error, UnicodeDecodeError):
        raise _wrong(f"{path} is not a file of the AWS tools", "Correct it, or set AWS_ACCESS_KEY_ID.") from None
    return {name: dict(parser[name]) for name in parser.sections()}


def _endpoint(name: str, value: str | None) -> str | None:
    if not value:
        return None
    if not value.startswith(("https://", "http://")) or "@" in value:
        raise _wrong(f"{name} does not read https://host:port", "Correct it, or unset it.")
    return value.rstrip("/")


def _wrong(cause: str, fix: str) -> NimctlError:
    return NimctlError("config-invalid", "the settings of the object store cannot be used", cause=cause, fix=fix)
