"""What docker-py, its HTTP client and the daemon can throw, and the error each becomes. Pure: works on names and texts.

Exceptions are matched by the name of their class, so that this table needs none of those packages; a unit test walks
the classes of the installed docker-py and fails on one that is missing here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from nimctl.core.docker_state import NO_SSH
from nimctl.core.errors import NimctlError
from nimctl.core.secret import redact

# Class name to error id. What the daemon says (`_SENTENCES`) is asked first.
CLASSES: Mapping[str, str] = {
    # docker.errors
    "DockerException": "docker-unreachable",
    "APIError": "docker-refused",
    "NotFound": "docker-refused",
    "ImageNotFound": "image-not-found",
    "InvalidVersion": "docker-too-old",
    "InvalidRepository": "image-not-found",
    "InvalidConfigFile": "credentials-unwritable",
    "InvalidArgument": "internal",
    "DeprecatedMethod": "internal",
    "NullResource": "internal",
    "TLSParameterError": "docker-unreachable",
    "ContainerError": "container-died",
    "StreamParseError": "docker-refused",
    "BuildError": "image-build-failed",
    "ImageLoadError": "image-pull-failed",
    "MissingContextParameter": "docker-unreachable",
    "ContextAlreadyExists": "docker-unreachable",
    "ContextException": "docker-unreachable",
    "ContextNotFound": "docker-unreachable",
    # docker.credentials.errors: the helper programs named in docker's configuration
    "StoreError": "credentials-unwritable",
    "CredentialsNotFound": "credentials-unwritable",
    "InitializationError": "credentials-unwritable",
    # requests and urllib3, as they come through
    "Timeout": "docker-hangs",
    "ConnectTimeout": "docker-hangs",
    "ReadTimeout": "docker-hangs",
    "ReadTimeoutError": "docker-hangs",
    "TimeoutError": "docker-hangs",
    "ConnectionError": "docker-unreachable",
    "ChunkedEncodingError": "docker-unreachable",
    "RequestException": "docker-unreachable",
    "ProtocolError": "docker-unreachable",
    "HTTPError": "docker-unreachable",
    "FileNotFoundError": "docker-missing",
    "PermissionError": "docker-permission",
    "ConnectionRefusedError": "docker-unreachable",
    "OSError": "docker-unreachable",
    "JSONDecodeError": "docker-refused",
}

# How each looks to the user: the way out, by error id.
_FIXES: Mapping[str, str] = {
    "docker-missing": "Install Docker Engine 24 or later (https://docs.docker.com/engine/install/) and start it, "
    "or use `--runtime process`.",
    "docker-permission": "Add yourself to the docker group (`sudo usermod -aG docker $USER`) and log in again.",
    "docker-unreachable": "Start it (`sudo systemctl start docker`; without root `systemctl --user start docker`), "
    "or correct DOCKER_HOST or `docker context`.",
    "docker-hangs": "Look at the daemon (`journalctl -u docker`) and restart it: `sudo systemctl restart docker` "
    "(running containers stop unless live-restore is on).",
    "docker-too-old": "Install Docker Engine 24.0 or later: https://docs.docker.com/engine/install/",
    "docker-refused": "Read the daemon's sentence; `journalctl -u docker` holds the rest.",
    "image-not-found": "Check the name and the tag; `nimctl pull` fetches it, `nimctl build` makes ours.",
    "image-pull-failed": "Check the network and the daemon's proxy with its login "
    "(https://docs.docker.com/engine/daemon/proxy/), then pull again: what is here is kept.",
    "image-tampered": "Nothing of it is used. Pull again; if it stays so, a proxy or mirror on the way changes "
    "content, or the registry's disk is damaged.",
    "image-rate-limited": "Wait a while, or log in for a higher limit: `nimctl login REGISTRY`.",
    "image-incompatible": "Use an image for this processor, or correct the image's entrypoint.",
    "image-build-failed": "Read the last lines of the build and correct what they name.",
    "credentials-unwritable": "Correct docker's config.json (DOCKER_CONFIG) or the credential helper it names.",
    "key-refused": "Log in again with a personal key that may see this image: `nimctl login`.",
    "payment-required": "Join the NVIDIA Developer Program or get an NVIDIA AI Enterprise licence, or log in with a "
    "key of an organisation that has one: `nimctl login`.",
    "terms-not-accepted": "Open the model's page in the NGC catalogue, accept its terms, then try again.",
    "disk-full": "Free space on docker's disk (`docker system df`, `docker image prune`), then try again.",
    "gpu-runtime-missing": "Install the NVIDIA Container Toolkit, run `sudo nvidia-ctk runtime configure "
    "--runtime=docker && sudo systemctl reload docker`; for CDI: "
    "`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`.",
    "driver-missing": "Load the NVIDIA driver; `nimctl doctor` shows what it says.",
    "cache-not-writable": "Prepare the folder with `nimctl cache init`.",
    "port-in-use": "Choose another port with --port.",
    "name-in-use": "Stop that run with `nimctl stop`, or give this one another --name.",
    "usage": "Correct the value that is named.",
    "container-died": "Read its log: `nimctl logs`.",
    "internal": "Report it together with `nimctl doctor --save-facts`.",
}

# Sentences of the daemon, of runc and of NVIDIA's hook, in the order in which they are tried.
_SENTENCES: tuple[tuple[str, str], ...] = (
    (r"no space left on device|disk quota exceeded", "disk-full"),
    (r"cannot assign requested address", "usage"),
    (r"port is already allocated|address already in use", "port-in-use"),
    (r"container name .* is already in use", "name-in-use"),
    (r"unresolvable CDI devices|CDI device injection failed|could not select device driver", "gpu-runtime-missing"),
    (r"unknown or invalid runtime name", "gpu-runtime-missing"),
    (r"nvidia-container-cli: .*(driver not loaded|driver/library version)", "driver-missing"),
    (r"nvidia-container-cli|nvidia-container-runtime", "gpu-runtime-missing"),
    (r"no matching manifest|does not match the specified platform|exec format error", "image-incompatible"),
    (r"executable file not found|unable to start container process: exec", "image-incompatible"),
    (r"no such image|manifest unknown|manifest for .* not found|name unknown|invalid reference", "image-not-found"),
    (r"client version .* is too (old|new)|newer than server", "docker-too-old"),
    (r"error while creating mount source path|bind source path does not exist", "cache-not-writable"),
)

# Sentences of registries and of the daemon's own network; elsewhere the same words mean other things.
_PULL_SENTENCES: tuple[tuple[str, str], ...] = (
    # what the daemon's own proxy and disk refuse, in words that registries use as well
    (r"proxy authentication required|proxyconnect.*\b40[37]\b|\b407\b", "image-pull-failed"),
    # the classic store, and containerd's
    (r"layer verification failed|verification failed for digest|unexpected commit (digest|size)", "image-tampered"),
    (r"invalid tar header|unexpected tar|archive/tar", "image-incompatible"),
    (r"failed to (register|extract) layer|failed to mount|read-only file system", "docker-refused"),
    (r"toomanyrequests|too many requests|\b429\b", "image-rate-limited"),
    (r"\b402\b|payment required", "payment-required"),
    (r"\bterms\b|\b451\b", "terms-not-accepted"),
    (
        r"unauthorized|authentication required|\bdenied\b|forbidden|\b40[13]\b|no basic auth|incorrect user",
        "key-refused",
    ),
    (r"\b404\b|not found", "image-not-found"),
)


@dataclass(frozen=True)
class Doing:
    """What was being done, for the message. In a `pull` the daemon repeats what a registry says."""

    what: str
    kind: Literal["ask", "pull"] = "ask"


def id_of(error: BaseException, doing: Doing) -> str:
    """The error id of an exception of docker-py or below: what the daemon says, else the innermost known cause."""
    if _said_by_daemon(error):
        known = CLASSES.get(type(error).__name__, "docker-refused")
        return id_of_sentence(_sentence(error), doing, otherwise="image-pull-failed" if doing.kind == "pull" else known)
    # docker-py wraps "no such file" three times; the innermost link that means something is the cause. A credential
    # helper that is not installed is a missing file too, but not a missing docker.
    ids = [CLASSES[name] for link in _chain(error) if (name := _known_class(link))]
    if "credentials-unwritable" in ids:
        return "credentials-unwritable"
    specific = [i for i in ids if i not in ("docker-unreachable", "docker-refused")]
    return (specific[::-1] or ids or ["internal"])[0]


def id_of_sentence(sentence: str, doing: Doing, *, otherwise: str) -> str:
    """The error id for what the daemon wrote, in an answer or into the stream of a pull."""
    patterns = _SENTENCES + (_PULL_SENTENCES if doing.kind == "pull" else ())
    return next((i for pattern, i in patterns if re.search(pattern, sentence, re.IGNORECASE)), otherwise)


def translate(error: BaseException, doing: Doing, endpoint: str | None = None) -> NimctlError:
    """The exception as one of ours, with the daemon's own sentence as its cause."""
    return failure(id_of(error, doing), f"{doing.what} failed", _sentence(error) or type(error).__name__, endpoint)


def failure(error_id: str, message: str, sentence: str, endpoint: str | None = None) -> NimctlError:
    """An error of this room with the fix that belongs to its id."""
    where = f" ({endpoint})" if endpoint and error_id.startswith("docker-") else ""
    cause = redact(" ".join(sentence.split())) or "the daemon gave no reason"
    return NimctlError(error_id, message, cause=f"{cause}{where}", fix=_FIXES[error_id])


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and everything that it was raised from or holds as an argument, each once."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        link = waiting.pop(0)
        if link not in seen:
            seen.append(link)
            yield link
            inner = (link.__cause__, link.__context__, getattr(link, "reason", None), *getattr(link, "args", ()))
            waiting += [i for i in inner if isinstance(i, BaseException)]


def _known_class(error: BaseException) -> str | None:
    return next((c.__name__ for c in type(error).__mro__ if c.__name__ in CLASSES), None)


def _said_by_daemon(error: BaseException) -> bool:
    return getattr(error, "response", None) is not None or hasattr(error, "explanation")


def _sentence(error: BaseException) -> str:
    """The daemon's explanation where there is one, else the innermost reason."""
    if explanation := getattr(error, "explanation", None):
        return str(explanation)
    if "paramiko" in str(error):
        return NO_SSH
    innermost = [link for link in _chain(error) if isinstance(link, OSError) and link.strerror]
    return str(innermost[-1]) if innermost else str(error)
