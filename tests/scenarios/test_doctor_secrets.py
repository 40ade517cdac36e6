"""Duty: what the doctor shows and saves can be given to a stranger. Keys lie wherever a host may keep them."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Nimctl
from tests.lib import lab as the_lab

pytestmark = pytest.mark.lab

# Three keys of three shapes: only what is never kept can be trusted not to show, as no pattern knows the third.
NGC, HUB, PLAIN = "nvapi-CANARYcanaryCANARYcanary0123", "hf_CANARYcanaryCANARYcanary", "c4n4ry-p4ss-w0rd"
ENCODED = base64.b64encode(f"$oauthtoken:{PLAIN}".encode()).decode()
CANARIES = (NGC, HUB, PLAIN, ENCODED)
CONTAINER = "doctor-secrets"


@pytest.fixture
def environment(host: Callable[[str], dict[str, str]], home: Path, tmp_path: Path) -> dict[str, str]:
    """A host with a key in every place that the doctor looks at."""
    docker = home / "docker"
    docker.mkdir()
    (docker / "config.json").write_text(
        json.dumps(
            {"auths": {"nvcr.io": {"auth": ENCODED}}, "HttpHeaders": {"X-Key": PLAIN}, "proxies": {"default": {}}}
        )
    )
    return host("8xH200") | {
        "DOCKER_CONFIG": str(docker),
        "NGC_API_KEY": NGC,
        "HF_TOKEN": HUB,
        "HTTPS_PROXY": f"http://user:{PLAIN}@127.0.0.1:9",
        "HF_ENDPOINT": "https://127.0.0.1:9",
        "REQUESTS_CA_BUNDLE": str(tmp_path / "no-such.pem"),
    }


@pytest.fixture
def container() -> Iterator[str]:
    """A container that was given keys as variables, as pages of shell snippets do it."""
    the_lab.docker("rm", "--force", CONTAINER)
    started = the_lab.docker(
        "run", "--detach", "--name", CONTAINER, "--env", f"NGC_API_KEY={NGC}", "--env", f"DATABASE_PASSWORD={PLAIN}",
        the_lab.BASE_IMAGE, "sleep", "300",
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    yield CONTAINER
    the_lab.docker("rm", "--force", CONTAINER)


def test_no_key_is_in_anything_that_the_doctor_writes(
    environment: dict[str, str], container: str, nimctl: Nimctl, home: Path
) -> None:
    facts = home / "facts.json"
    calls = {
        "human": ("kimi-k2.5-turbo",),
        "verbose": ("kimi-k2.5-turbo", "--verbose"),
        "quiet": ("kimi-k2.5-turbo", "--quiet"),
        "json": ("kimi-k2.5-turbo", "--json", "--save-facts", str(facts)),
        "markdown": ("kimi-k2.5-turbo", "--markdown"),
        "debug": ("kimi-k2.5", "--debug", "--json"),
        "replay": ("kimi-k2.5-turbo", "--json", "--facts", str(facts)),
        "replay as markdown": ("kimi-k2.5-turbo", "--markdown", "--facts", str(facts)),
        "plan of repairs": ("kimi-k2.5-turbo", "--fix"),
        "plan of repairs as json": ("kimi-k2.5-turbo", "--fix", "--json"),
        "refused facts": ("kimi-k2.5-turbo", "--debug", "--facts", environment["DOCKER_CONFIG"] + "/config.json"),
        "of one check": ("kimi-k2.5-turbo", "--only", "keys-in-containers,docker-login", "--json"),
    }
    written = {name: nimctl("doctor", *arguments, env=environment) for name, arguments in calls.items()}
    sinks = {name: done.stdout + done.stderr for name, done in written.items()} | {"facts": facts.read_text()}
    assert len(sinks) >= 12 and all(sinks.values())
    assert not [(name, key) for name, text in sinks.items() for key in CANARIES if key in text]

    found = {f["check"]: f for f in written["json"].document["findings"]}
    assert container in found["keys-in-containers"]["title"] and found["keys-in-containers"]["evidence"] == [
        "NGC_API_KEY"
    ]
    (seen,) = [c for c in json.loads(facts.read_text())["docker"]["containers"] if c["name"] == container]
    assert seen["key_variables"] == ["DATABASE_PASSWORD", "NGC_API_KEY"], (
        "told by name, so the values were there to see"
    )
    assert "nvcr.io" in json.dumps(found["docker-login"])
    assert json.loads(facts.read_text())["network"]["proxies"]["HTTPS_PROXY"] == "http://127.0.0.1:9"
