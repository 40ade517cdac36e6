"""Facts about network and credentials: whether keys are there, what registries say to them, never the keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

KeyKind = Literal["personal", "legacy", "hugging-face", "other"]
Reached = Literal["ok", "dns", "refused", "timeout", "tls", "clock", "proxy", "failed"]


@dataclass(frozen=True)
class PortFacts:
    """The address a run would publish on. `free` is None where it could not be tried."""

    host: str
    port: int
    free: bool | None = None
    detail: str | None = None


@dataclass(frozen=True)
class HostReach:
    """Whether a host that the model needs answers from here.

    `purpose` says what for: `image` and `weights` are the registry and the source that a run asks itself; a word more
    (`image layers`, `weights files`, `weights of the container`, `weights key`) marks hosts that others ask, or that
    are not always asked. `state`: dns (its name), refused, timeout, tls (its certificate is not trusted), clock (its
    certificate is not valid at the time that this machine shows), proxy (it is not there, or lets nobody through).
    `via` is the proxy that was used ("host:port"). `skew` is this machine's clock minus the host's in seconds, by its
    Date header; None where it sent none.
    """

    url: str
    purpose: str
    state: Reached
    detail: str | None = None
    via: str | None = None
    skew: float | None = None


@dataclass(frozen=True)
class CaFacts:
    """The bundles of certificate authorities that the environment names: variable, path, and what is wrong with it."""

    variable: str
    path: str
    problem: str | None = None


@dataclass(frozen=True)
class NetworkFacts:
    """Proxies (without user and password), CA bundles, and which hosts answer. `reached` is None: nobody was asked."""

    proxies: Mapping[str, str] = field(default_factory=dict)
    authorities: tuple[CaFacts, ...] = ()
    reached: tuple[HostReach, ...] | None = None
    offline: bool | None = None  # HF_HUB_OFFLINE or the like is set


@dataclass(frozen=True)
class ImageAccess:
    """What the registry said when it was asked for the manifest of `reference`, without a pull.

    `id` is None when it was granted (then `digest` is what a pull would get), else the error's id: key-missing,
    key-refused, organisation-wrong, terms-not-accepted, payment-required, image-not-found, platform-missing,
    image-rate-limited, image-pull-failed, or whatever stopped the look for a login. `credentials` says which were
    shown: docker-login, NGC_API_KEY, none.
    """

    reference: str
    credentials: str
    id: str | None = None
    digest: str | None = None
    message: str | None = None
    cause: str | None = None
    fix: str | None = None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class CredentialFacts:
    """Which keys are present (never their values), of which kind, and where Docker keeps its logins.

    `key_files` are the modes of the files that NGC_API_KEY_FILE and HF_TOKEN_FILE name, by the variable. `plaintext`
    names the registries whose login lies unencrypted in Docker's configuration file, `config_mode` is that file's mode,
    `config_problem` why it cannot be used. Modes are octal text. `image` is what the registry said; None when it was
    not asked.
    """

    keys: Mapping[str, bool] = field(default_factory=dict)
    kinds: Mapping[str, KeyKind] = field(default_factory=dict)
    key_files: Mapping[str, str] = field(default_factory=dict)
    logins: tuple[str, ...] = ()
    plaintext: tuple[str, ...] = ()
    config_mode: str | None = None
    config_problem: str | None = None
    store: str | None = None
    helper_problem: str | None = None
    image: ImageAccess | None = None


@dataclass(frozen=True)
class ToolFacts:
    """What the process runtime needs on the host: nginx's path and version, and vLLM's version in this Python."""

    nginx: str | None = None
    nginx_version: str | None = None
    vllm: str | None = None
