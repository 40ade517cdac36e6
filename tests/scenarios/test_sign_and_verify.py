"""`nimctl sign` and `nimctl verify` as people use them: in a registry, with a policy, and with the lab's Docker."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimctl.core.signatures import Material
from nimctl.registry.artifacts import signatures_of
from nimctl.registry.reference import parse
from tests.conftest import Nimctl
from tests.lib import lab
from tests.lib.memory_registry import MemoryRegistry, memory_registry


@pytest.fixture
def registry() -> Iterator[MemoryRegistry]:
    with memory_registry() as registry:
        yield registry


@pytest.fixture
def env(bare_host: dict[str, str], home: Path) -> dict[str, str]:
    return {**bare_host, "DOCKER_CONFIG": str(home)}


def test_a_key_signs_and_its_public_half_verifies(
    nimctl: Nimctl, env: dict[str, str], home: Path, registry: MemoryRegistry
) -> None:
    digest, image = registry.image("models/cpu", "1"), f"{registry.address}/models/cpu:1"
    made = nimctl("sign", "--generate", "keys", "--passphrase-stdin", "--json", env=env, stdin="open sesame\n")
    assert made.code == 0, made.stderr
    assert made.document["encrypted"] is True
    secret = {**env, "NIMCTL_SIGN_PASSPHRASE": "open sesame"}
    signed = nimctl("sign", image, "--key", "keys/nimctl.key", "--json", env=secret)
    assert signed.code == 0, signed.stderr
    assert (signed.document["digest"], len(signed.document["signatures"])) == (digest, 2)
    assert "sesame" not in signed.stdout + signed.stderr
    good = nimctl("verify", image, "--key", "keys/nimctl.pub", "--platform", "linux/amd64", "--json", env=env)
    assert good.code == 0, good.stderr
    assert (good.document["image"]["signature"]["verdict"], good.document["image"]["digest"]) == ("good", digest)
    locked = nimctl("sign", image, "--key", "keys/nimctl.key", "--json", env=env, stdin="")
    assert (locked.code, locked.error_id) == (2, "trust-invalid")
    assert "passphrase" in locked.stdout
    by_openssl(home, signatures_of(parse(image), [digest], None))


def by_openssl(home: Path, materials: tuple[Material, ...]) -> None:
    """The same signature, verified by openssl: what cosign does with it is no more than this."""
    (simple,) = (material for material in materials if material.kind == "simple-signing")
    (home / "payload").write_bytes(simple.payload)
    (home / "encoded").write_text(simple.signature + "\n")
    subprocess.run(["openssl", "base64", "-d", "-A", "-in", home / "encoded", "-out", home / "signature"], check=True)
    argv = ["openssl", "dgst", "-sha256", "-verify", home / "keys/nimctl.pub", "-signature", home / "signature"]
    done = subprocess.run([*argv, home / "payload"], capture_output=True, text=True, check=False)
    assert done.stdout == "Verified OK\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "error_id"),
    [
        (("IMAGE", "--key", "k", "--generate", "d"), 2, "usage"),
        (("IMAGE", "--key", "/nowhere.key"), 2, "trust-invalid"),
    ],
)
def test_what_sign_refuses(
    arguments: tuple[str, ...], code: int, error_id: str, nimctl: Nimctl, env: dict[str, str]
) -> None:
    done = nimctl("sign", *arguments, "--json", env=env)
    assert (done.code, done.error_id) == (code, error_id)


def test_a_build_that_is_not_pushed_is_not_signed(nimctl: Nimctl, env: dict[str, str]) -> None:
    done = nimctl("build", "cpu", "--sign-key", "nimctl.key", "--json", env=env)
    assert (done.code, done.error_id) == (2, "usage")
    missing = nimctl("build", "cpu", "--push", "--tag", "127.0.0.1:9/a/b:1", "--sign-key", "no.key", "--json", env=env)
    assert (missing.code, missing.error_id) == (2, "trust-invalid")


def test_unsigned_and_without_a_rule(nimctl: Nimctl, env: dict[str, str], registry: MemoryRegistry) -> None:
    registry.image("models/cpu", "1")
    image = f"{registry.address}/models/cpu:1"
    nimctl("sign", "--generate", "keys", "-q", env=env, stdin="")
    unsigned = nimctl("verify", image, "--key", "keys/nimctl.pub", "--platform", "linux/amd64", "--json", env=env)
    assert (unsigned.code, unsigned.error_id) == (5, "signature-missing")
    assert unsigned.document["image"]["signature"]["verdict"] == "none"
    ruleless = nimctl("verify", image, "--platform", "linux/amd64", "--json", env=env)
    assert (ruleless.code, ruleless.error_id) == (2, "trust-invalid")


@pytest.mark.lab
def test_docker_gets_what_is_signed_and_nothing_else(nimctl: Nimctl, host, home: Path) -> None:
    env = {**host("none"), "DOCKER_CONFIG": str(home)}
    registry = lab.registry.info(lab.paths())
    lab.registry.docker_config(lab.paths(), home, key=registry.key)
    name = f"{registry.address}/open/trust-signed"
    made = nimctl("sign", "--generate", "config/nimctl", "-q", env=env, stdin="")
    assert made.code == 0, made.stderr
    (home / "config/nimctl/config.yaml").write_text(f"verify: require\ntrust: [{{images: {name}, keys: nimctl.pub}}]\n")
    lab.push_image("open/trust-signed:good")
    signed = nimctl("sign", f"{name}:good", "--key", "config/nimctl/nimctl.key", "--json", env=env)
    assert signed.code == 0, signed.stderr
    lab.push_image("open/trust-signed:unsigned", {"hello": os.urandom(8)})
    try:
        refused = nimctl("pull", f"{name}:unsigned", "--json", env=env)
        assert (refused.code, refused.error_id) == (5, "signature-missing")
        assert lab.docker("image", "ls", "-q", f"{name}:unsigned").stdout == ""
        pulled = nimctl("pull", f"{name}:good", "--json", env=env)
        assert pulled.code == 0, pulled.stderr
        assert pulled.document["signature"]["verdict"] == "good"
        again = nimctl("pull", f"{name}:good", "--json", env=env)  # it is here: proved from what was kept
        assert json.loads(again.stdout)["signature"]["verdict"] == "good", again.stderr
    finally:
        lab.docker("image", "rm", "-f", f"{name}:good", f"{name}:unsigned")
