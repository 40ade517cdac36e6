"""Rules as people write them: read, matched, and refused with file, line and key."""

from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.yamlfile import line_of, read_yaml
from nimctl.trust.policy import Rules, plain_name, read_policy, read_rules

GOOD = """
verify: require
trust:
  - images: nvcr.io/nim/**
    keys: [ngc.pub, ~/other.pub]
  - images: [mirror.corp:5000/nvidia/nim/**]
    signed_as: nvcr.io/nim/**
    keys: /etc/keys/ngc.pub
  - images: registry.corp/*/cuda
    keyless:
      - identity: https://github.com/corp/images@*
        issuer: https://token.actions.githubusercontent.com
        trusted_root: root.json
  - weights: ngc://nim/moonshotai/**
    certs: nvidia.pem
    signature: result.sigstore
"""


def rules(text: str, folder: Path) -> Rules:
    path = folder / "config.yaml"
    path.write_text(text)
    return read_rules(read_yaml(path)["trust"], path, lambda place: line_of(path, ("trust", *place)))


def test_rules_are_read(tmp_path: Path) -> None:
    found = rules(GOOD, tmp_path).rules
    assert [rule.where.rpartition(":")[2] for rule in found] == ["4", "6", "9", "14"]
    assert found[0].keys == (tmp_path / "ngc.pub", Path("~/other.pub").expanduser())
    assert found[1].keys == (Path("/etc/keys/ngc.pub"),)
    assert found[2].keyless[0].trusted_root == tmp_path / "root.json"
    assert (found[3].certs, found[3].signature) == ((tmp_path / "nvidia.pem",), Path("result.sigstore"))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nvcr.io/nim/moonshotai/kimi-k2.5", "4"),
        ("nvcr.io/nim/x", "4"),
        ("nvcr.io/nim", None),
        ("nvcr.io/nimble/x", None),
        ("evil.io/nvcr.io/nim/x", None),
        ("mirror.corp:5000/nvidia/nim/a/b", "6"),
        ("registry.corp/models/cuda", "9"),
        ("registry.corp/a/b/cuda", None),
        ("registryxcorp/models/cuda", None),
        (plain_name("NVCR.IO:443/nim/x"), "4"),
        (plain_name("registry.corp:4430/models/cuda"), None),
    ],
)
def test_which_rule_is_about_an_image(name: str, line: str | None, tmp_path: Path) -> None:
    rule = rules(GOOD, tmp_path).for_image(name)
    assert (rule.where.rpartition(":")[2] if rule else None) == line


def test_a_registry_has_one_name_in_rules_too(tmp_path: Path) -> None:
    text = "trust: [{images: Mirror.Corp:443/nim/**, signed_as: NVCR.IO/nim/**, keys: k}]"
    rule = rules(text, tmp_path).for_image("mirror.corp/nim/x")
    assert rule is not None
    assert rule.expected("mirror.corp/nim/x") == "nvcr.io/nim/x"


def test_a_mirror_keeps_the_rest_of_the_name(tmp_path: Path) -> None:
    found = rules(GOOD, tmp_path)
    name = "mirror.corp:5000/nvidia/nim/moonshotai/kimi-k2.5"
    rule = found.for_image(name)
    assert rule is not None
    assert rule.expected(name) == "nvcr.io/nim/moonshotai/kimi-k2.5"
    own = found.for_image("nvcr.io/nim/x")
    assert own is not None
    assert own.expected("nvcr.io/nim/x") == "nvcr.io/nim/x"


def test_weights_by_their_address(tmp_path: Path) -> None:
    found = rules(GOOD, tmp_path)
    assert found.for_weights("ngc://nim/moonshotai/kimi")
    assert not found.for_weights("hf://moonshotai/kimi")
    assert not found.for_image("ngc://nim/moonshotai/kimi")


@pytest.mark.parametrize(
    ("text", "line", "key", "word"),
    [
        ("trust: {images: x, keys: y}", 1, "trust", "no list"),
        ("trust:\n  - nvcr.io/nim/**", 2, "trust.1", "no rule"),
        ("trust:\n  - images: a/b\n    keys: k\n    key: k2", 4, "trust.1.key", "no such key"),
        ("trust:\n  - images: a/b\n    keys: k\n  - images: c/d", 4, "trust.2", "trusts nobody"),
        ("trust:\n  - keys: k", 2, "trust.1", "neither or both"),
        ("trust:\n  - images: a/b\n    weights: hf://x\n    keys: k", 2, "trust.1", "neither or both"),
        ("trust:\n  - images: a/b\n    keys: 7", 3, "trust.1.keys", "neither text nor"),
        ("trust:\n  - images: a/b\n    keys: ['']", 3, "trust.1.keys", "neither text nor"),
        ("trust:\n  - images: a/b\n    certs: c\n    keys: k", 3, "trust.1.certs", "only rules about weights"),
        ("trust:\n  - weights: hf://a/b\n    keys: k\n    signed_as: x", 4, "trust.1.signed_as", "about images"),
        ("trust:\n  - images: nvcr.io/nim/x:1.0\n    keys: k", 2, "trust.1.images", "tag or a digest"),
        ("trust:\n  - images: https://nvcr.io/nim\n    keys: k", 2, "trust.1.images", "is an address"),
        ("trust:\n  - images: a/*\n    signed_as: b/**\n    keys: k", 3, "trust.1.signed_as", "not those of"),
        ("trust:\n  - images: a/b\n    keyless: {identity: x}", 3, "trust.1.keyless", "needs an"),
        ("trust:\n  - images: a/b\n    keyless:\n      - identity: '*'\n        issuer: i", 4,
         "trust.1.keyless.0.identity", "trusts everybody"),
        ("trust:\n  - images: a/b\n    keyless:\n      - identity: x\n        isuer: i", 5,
         "trust.1.keyless.0.isuer", "no such key"),
        ("trust:\n  - images: a/b\n    keyless: [x]", 3, "trust.1.keyless.0", "no pair"),
    ],
)  # fmt: skip
def test_a_wrong_rule_names_file_line_and_key(text: str, line: int, key: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(NimctlError) as raised:
        rules(text, tmp_path)
    assert raised.value.id == "trust-invalid"
    assert raised.value.message == f"{tmp_path / 'config.yaml'}, line {line}: {key} cannot be used"
    assert word in raised.value.cause


def test_policies() -> None:
    assert [read_policy(value, "x") for value in ("off", "warn", "Require ")] == ["off", "warn", "require"]
    assert {read_policy(value, "x") for value in ("off", "OFF", "false", "No", False)} == {"off"}
    for value in ("never", True, 1, None, [], {}, "true"):
        with pytest.raises(NimctlError, match="config-invalid"):
            read_policy(value, "--verify")
