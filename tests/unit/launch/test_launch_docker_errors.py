"""Every exception of docker-py and below has a meaning here, and so has every sentence that daemons are known for."""

import inspect

import docker.credentials.errors
import docker.errors
import pytest
import requests
import requests.exceptions
import urllib3.exceptions

from nimctl.core.errors import CATALOGUE
from nimctl.launch.docker.errors import _FIXES, _SENTENCES, CLASSES, Doing, failure, id_of, id_of_sentence, translate

ASKING, PULLING = Doing("asking"), Doing("pulling", "pull")


def exceptions_of(module: object) -> list[type[BaseException]]:
    return [c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, BaseException)]


@pytest.mark.parametrize(
    "kind", [*exceptions_of(docker.errors), *exceptions_of(docker.credentials.errors)], ids=lambda c: c.__name__
)
def test_every_class_of_docker_py_is_mapped_by_its_own_name(kind: type[BaseException]) -> None:
    assert kind.__name__ in CLASSES


@pytest.mark.parametrize(
    "kind",
    [c for c in exceptions_of(requests.exceptions) if issubclass(c, requests.exceptions.RequestException)],
    ids=lambda c: c.__name__,
)
def test_every_request_exception_has_a_mapped_ancestor(kind: type[BaseException]) -> None:
    assert any(c.__name__ in CLASSES for c in kind.__mro__)


@pytest.mark.parametrize(
    "kind",
    [c for c in exceptions_of(urllib3.exceptions) if issubclass(c, urllib3.exceptions.HTTPError)],
    ids=lambda c: c.__name__,
)
def test_every_http_exception_has_a_mapped_ancestor(kind: type[BaseException]) -> None:
    assert any(c.__name__ in CLASSES for c in kind.__mro__)


def test_every_id_is_in_the_catalogue_and_has_a_way_out() -> None:
    ids = {*CLASSES.values(), *(error_id for _, error_id in _SENTENCES)}
    assert ids <= set(CATALOGUE)
    assert ids <= set(_FIXES)


def api_error(sentence: str, status: int, kind: type[docker.errors.APIError] = docker.errors.APIError) -> Exception:
    response = requests.Response()
    response.status_code = status
    return kind(f"{status} Error", response=response, explanation=sentence)


@pytest.mark.parametrize(
    ("sentence", "error_id"),
    [
        ("driver failed programming external connectivity on endpoint demo: Bind for 127.0.0.1:8000 failed: "
         "port is already allocated", "port-in-use"),
        ("failed to bind host port for 127.0.0.1:8000:172.17.0.2:8000/tcp: address already in use", "port-in-use"),
        ("listen tcp4 10.0.0.9:8000: bind: cannot assign requested address", "usage"),
        ('Conflict. The container name "/demo" is already in use by container "0a1b". You have to remove '
         "(or rename) that container to be able to reuse that name.", "name-in-use"),
        ("No such image: nimctl/cuda:1", "image-not-found"),
        ("mkdir /var/lib/docker/overlay2/x: no space left on device", "disk-full"),
        ("could not select device driver \"\" with capabilities: [[gpu]]", "gpu-runtime-missing"),
        ("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all", "gpu-runtime-missing"),
        ("unknown or invalid runtime name: nvidia", "gpu-runtime-missing"),
        ("OCI runtime create failed: nvidia-container-cli: initialization error: nvml error: driver not loaded",
         "driver-missing"),
        ("OCI runtime create failed: nvidia-container-cli: device error: 9: unknown device", "gpu-runtime-missing"),
        ('exec: "nvidia-smi": executable file not found in $PATH', "image-incompatible"),
        ("client version 1.24 is too old. Minimum supported API version is 1.44", "docker-too-old"),
        ("error while creating mount source path '/data/nim': mkdir /data: read-only file system",
         "cache-not-writable"),
        ("something nobody has heard of", "docker-refused"),
    ],
)  # fmt: skip
def test_what_the_daemon_says_decides(sentence: str, error_id: str) -> None:
    error = translate(api_error(sentence, 500), ASKING)
    assert error.id == error_id
    assert sentence.split(":", maxsplit=1)[0] in error.cause


@pytest.mark.parametrize(
    ("sentence", "error_id"),
    [
        ("unauthorized: authentication required", "key-refused"),
        ("pull access denied for nim/x, repository does not exist or may require 'docker login'", "key-refused"),
        ("unexpected status from HEAD request to https://r/v2/nim/x/manifests/1: 403 Forbidden", "key-refused"),
        ("unexpected status: 402 Payment Required", "payment-required"),
        ("manifest for nim/x:9 not found: manifest unknown", "image-not-found"),
        ("no matching manifest for linux/arm64 in the manifest list entries", "image-incompatible"),
        ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "disk-full"),
        ("net/http: TLS handshake timeout", "image-pull-failed"),
        ('Get "https://nvcr.io/v2/": Proxy Authentication Required', "image-pull-failed"),
        ('Get "https://nvcr.io/v2/": proxyconnect tcp: 403 Forbidden', "image-pull-failed"),
        ("failed to register layer: mkdir /var/lib/docker/overlay2/1/diff/opt: permission denied", "docker-refused"),
        ("failed to register layer: lchown /x: there might be insufficient UIDs or GIDs", "docker-refused"),
        ("failed to extract layer sha256:1: Lchown: operation not permitted", "docker-refused"),
        ("failed to register layer: write /x: no space left on device", "disk-full"),
        ("failed to register layer: archive/tar: invalid tar header", "image-incompatible"),
        ("open /var/lib/docker/tmp/GetImageBlob1: read-only file system", "docker-refused"),
    ],
)
def test_what_a_registry_says_decides_in_a_pull(sentence: str, error_id: str) -> None:
    assert translate(api_error(sentence, 500), PULLING).id == error_id
    assert id_of_sentence(sentence, PULLING, otherwise="image-pull-failed") == error_id


def test_permission_denied_in_a_container_is_no_refused_key() -> None:
    assert id_of(api_error("runc: permission denied: unknown", 500), ASKING) == "docker-refused"


def wrapped(inner: Exception) -> Exception:
    """As docker-py hands it out: inside urllib3's, inside requests', inside its own."""
    middle = requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", inner))
    outer = docker.errors.DockerException(f"Error while fetching server API version: {middle}")
    outer.__cause__ = middle
    return outer


@pytest.mark.parametrize(
    ("inner", "error_id"),
    [
        (FileNotFoundError(2, "No such file or directory"), "docker-missing"),
        (PermissionError(13, "Permission denied"), "docker-permission"),
        (ConnectionRefusedError(111, "Connection refused"), "docker-unreachable"),
        (ConnectionResetError(104, "Connection reset by peer"), "docker-unreachable"),
        (TimeoutError("timed out"), "docker-hangs"),
    ],
)
def test_the_innermost_cause_decides_where_the_daemon_says_nothing(inner: Exception, error_id: str) -> None:
    error = translate(wrapped(inner), ASKING, "unix:///run/x.sock")
    assert error.id == error_id
    assert "unix:///run/x.sock" in error.cause


def test_a_missing_credential_helper_is_no_missing_docker() -> None:
    helper = docker.credentials.errors.StoreError("docker-credential-x not installed")
    helper.__context__ = FileNotFoundError(2, "No such file or directory")
    assert id_of(helper, ASKING) == "credentials-unwritable"


def test_no_key_in_a_translated_error() -> None:
    error = failure("docker-refused", "asking failed", "invalid header: Bearer abcdefghijklmnop nvapi-0123456789abc")
    assert "abcdefghijklmnop" not in error.cause and "nvapi-0123456789abc" not in error.cause
