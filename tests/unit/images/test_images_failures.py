"""Each way in which a build fails: its id, its cause, its fix, its evidence."""

import pytest

from nimctl import images
from nimctl.core.errors import NimctlError
from tests.unit.images.build_hosts import put_docker


def failure(machine: dict[str, str], target: str = "cpu") -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        images.build(target, env=machine)
    return caught.value


def test_no_docker(machine: dict[str, str]) -> None:
    machine["PATH"] = machine["PATH"].split(":")[0]
    assert failure(machine).id == "docker-missing"


def test_no_buildx(machine: dict[str, str]) -> None:
    put_docker(machine, "exit 1", buildx="echo \"docker: 'buildx' is not a docker command.\" >&2; exit 1")
    error = failure(machine)
    assert (error.id, error.exit_code) == ("image-build-failed", 5)
    assert "buildx" in error.fix
    assert error.evidence == ("docker: 'buildx' is not a docker command.",)


def test_a_failing_step_is_named_with_its_last_lines(machine: dict[str, str]) -> None:
    put_docker(
        machine,
        "printf '#4 [a 1/2] RUN ok\\n#4 0.1 fine\\n#5 [a 2/2] RUN sh pip.sh\\n#5 1.2 Collecting x\\n#5 1.9 it broke\\n"
        "#5 ERROR: exit code: 2\\n'; echo 'failed to solve' >&2; exit 17",
    )
    error = failure(machine)
    assert error.id == "image-build-failed"
    assert "[a 2/2] RUN sh pip.sh" in error.message
    assert "17" in error.cause
    assert error.evidence == ("[a 2/2] RUN sh pip.sh", "Collecting x", "it broke", "exit code: 2")


@pytest.mark.parametrize(
    ("says", "id", "word"),
    [
        ("write /x: no space left on device", "disk-full", "prune"),
        (
            "ERROR: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
            "docker-unreachable",
            "start",
        ),
        ("permission denied while trying to connect to the Docker daemon socket", "docker-permission", "group"),
        ("#5 1.0 [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "image-build-failed", "--ca"),
        (
            "#5 1.0 ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE",
            "image-build-failed",
            "index",
        ),
        (
            "#3 ERROR: debian:12-slim: failed to resolve source metadata for debian:12-slim",
            "image-build-failed",
            "--base",
        ),
        ("#9 0.1 exec /bin/sh: exec format error", "image-build-failed", "binfmt"),
        ("ERROR: Multi-platform build is not supported for the docker driver.", "image-build-failed", "containerd"),
        (
            "ERROR: docker exporter does not currently support exporting manifest lists",
            "image-build-failed",
            "containerd",
        ),
        (
            " > pushing 127.0.0.1:1/x:1 with docker: dial tcp 127.0.0.1:1: connection refused",
            "image-build-failed",
            "--tag",
        ),
        ("ERROR: denied: Access Denied", "key-refused", "nimctl login"),
        ("ERROR: denied: requested access to the resource is denied", "key-refused", "nimctl login"),
        ("ERROR: push access denied: insufficient_scope: authorization failed", "key-refused", "nimctl login"),
        ("ERROR: no basic auth credentials", "key-missing", "nimctl login"),
        ("ERROR: failed to do request: Head https://r.example/v2/: dial tcp: refused", "image-build-failed", "--tag"),
        (
            "#3 ERROR: a/b:1: failed to resolve source metadata for a/b:1: pull access denied, insufficient_scope",
            "image-build-failed",
            "--base",
        ),
        ("#5 1.0 Temporary failure resolving 'deb.example'", "image-build-failed", "DNS"),
        ("#5 1.0 ERROR: No matching distribution found for torch==2.13.0+cpu", "image-build-failed", "--wheels"),
    ],
)
def test_known_causes_get_their_own_fix(machine: dict[str, str], says: str, id: str, word: str) -> None:  # noqa: A002
    put_docker(machine, f'echo "{says}"; exit 1')
    error = failure(machine)
    assert error.id == id
    assert word in error.fix
    assert says.endswith(error.evidence[-1])
