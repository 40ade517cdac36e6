"""What sources need to know of the world: keys, endpoints, and whether the network may be used at all."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nimctl.core.errors import NimctlError
from nimctl.core.keys import HUGGING_FACE, NGC, find_key
from nimctl.core.secret import Secret

HUB_ENDPOINT = "https://huggingface.co"
NGC_ENDPOINT = "https://api.ngc.nvidia.com"
NGC_AUTH_ENDPOINT = "https://authn.nvidia.com"
# huggingface_hub's own reading of a switch:
# https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
_TRUE = ("1", "on", "yes", "true")
# What an object store is configured by. https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html and
# https://cloud.google.com/docs/authentication/application-default-credentials
_OBJECT_STORE = ("AWS_", "GOOGLE_")
# Keys that may lie in a file, which NAME_FILE names then, as those of the other sources may.
OBJECT_STORE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True)
class Access:
    """Keys and addresses for every source; the default is anonymous access to the public endpoints.

    `override` is NIM_REPOSITORY_OVERRIDE: the mirror that takes the place of every remote source. `object_store` holds
    the AWS_* and GOOGLE_* variables; they are never shown.
    """

    hf_token: Secret | None = None
    hf_endpoint: str = HUB_ENDPOINT
    ngc_key: Secret | None = None
    ngc_endpoint: str = NGC_ENDPOINT
    ngc_auth_endpoint: str = NGC_AUTH_ENDPOINT
    override: str | None = None
    offline: bool = False
    object_store: Mapping[str, Secret] = field(default_factory=dict)


def from_environment(environment: Mapping[str, str]) -> Access:
    """The access that `environment` describes.

    Raises `config-invalid` for an endpoint that is no address or holds a password, and for a key file that cannot be
    read; `key-missing` for an empty one.
    """

    def endpoint(name: str, default: str, key: str) -> str:
        value = environment.get(name, "").strip().rstrip("/") or default
        if name.startswith("NGC_") and "://" not in value:
            # the shape that mirrors of NGC document: a bare host, and its scheme beside it
            # https://jfrog.com/help/r/jfrog-artifactory-documentation/connect-your-nvidia-nim-model-client-to-artifactory
            value = f"{environment.get('NGC_API_SCHEME', '').strip() or 'https'}://{value}"
        if not value.startswith(("http://", "https://")):
            raise NimctlError(
                "config-invalid",
                f"{name} is not an address",
                cause="it does not begin with https:// or http://",
                fix=f"Set {name} to an address such as {default}, or unset it.",
            )
        if "@" in value:  # anywhere, as a password may hold a slash that should have been percent-encoded
            raise NimctlError(
                "config-invalid",
                f"{name} holds a user or a password",  # and is not shown
                cause="a login in the address of an endpoint is sent to nobody",
                fix=f"Set {name} to the address alone, such as {default}; the key belongs into {key}. Where a mirror "
                "wants a user and a password, name the folder there as the weights: https://user:password@host/folder.",
            )
        return value

    return Access(
        hf_token=find_key(HUGGING_FACE, environment) or _old_token(environment),
        hf_endpoint=endpoint("HF_ENDPOINT", HUB_ENDPOINT, "HF_TOKEN"),
        ngc_key=find_key(NGC, environment),
        ngc_endpoint=endpoint("NGC_API_ENDPOINT", NGC_ENDPOINT, "NGC_API_KEY"),
        ngc_auth_endpoint=endpoint("NGC_AUTH_ENDPOINT", NGC_AUTH_ENDPOINT, "NGC_API_KEY"),
        override=environment.get("NIM_REPOSITORY_OVERRIDE", "").strip() or None,
        offline=environment.get("HF_HUB_OFFLINE", "").strip().lower() in _TRUE,
        object_store=_object_store(environment),
    )


def _object_store(environment: Mapping[str, str]) -> dict[str, Secret]:
    """What the stores' own libraries read, with the keys that lie in files in their place."""
    files = {f"{name}_FILE" for name in OBJECT_STORE_KEYS}
    found = {
        name: Secret(value)
        for name, value in environment.items()
        if name.startswith(_OBJECT_STORE) and value and name not in files
    }
    return found | {name: key for name in OBJECT_STORE_KEYS if (key := find_key(name, environment)) is not None}


def _old_token(environment: Mapping[str, str]) -> Secret | None:
    """The name that huggingface_hub still reads beside HF_TOKEN."""
    value = environment.get("HUGGING_FACE_HUB_TOKEN", "").strip()
    return Secret(value) if value else None
