"""Verdicts: only a trusted signature of exactly these bytes is good, whatever else is written around it."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from nimctl.core.image_identity import ImageIdentity
from nimctl.core.signatures import MAX_PAYLOAD, Material
from nimctl.trust.judging import Expected, Judgement, judge, proving_digests
from nimctl.trust.keys import PrivateKey, PublicKey, generate, read_private, read_public
from nimctl.trust.signing import sign_image
from tests.lib.memory_registry import digest_of

REPOSITORY = "nvcr.io/nim/moonshotai/kimi-k2.5"
DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
EXPECTED = Expected((DIGEST,), REPOSITORY)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[PrivateKey, PrivateKey]:
    folder = tmp_path_factory.mktemp("keys")
    first, second = (generate(folder / name, None)[0] for name in ("first", "second"))
    return read_private(first, None), read_private(second, None)


@pytest.fixture(scope="module")
def key(pairs: tuple[PrivateKey, PrivateKey]) -> PrivateKey:
    return pairs[0]


def verdict(*materials: Material, keys: list[PublicKey], expected: Expected = EXPECTED) -> Judgement:
    return judge(materials, expected, keys, [])


@pytest.mark.parametrize("form", [0, 1], ids=["simple signing", "bundle"])
def test_a_signature_of_these_bytes_is_good(form: int, key: PrivateKey) -> None:
    found = verdict(sign_image(key, REPOSITORY, DIGEST)[form], keys=[key.public])
    assert (found.verdict, found.digest) == ("good", DIGEST)
    assert found.by is not None
    assert key.public.fingerprint[:12] in found.by


@pytest.mark.parametrize("form", [0, 1], ids=["simple signing", "bundle"])
def test_another_key_is_not_trusted(form: int, pairs: tuple[PrivateKey, PrivateKey]) -> None:
    found = verdict(sign_image(pairs[1], REPOSITORY, DIGEST)[form], keys=[pairs[0].public])
    assert (found.verdict, found.digest, found.by) == ("wrong-key", None, None)


@pytest.mark.parametrize("form", [0, 1], ids=["simple signing", "bundle"])
def test_a_good_signature_of_another_image_proves_nothing(form: int, key: PrivateKey) -> None:
    moved = replace(sign_image(key, REPOSITORY, OTHER)[form], subject=DIGEST)
    assert verdict(moved, keys=[key.public]).verdict == "other-digest"


@pytest.mark.parametrize("form", [0, 1], ids=["simple signing", "bundle"])
def test_the_signed_repository_counts(form: int, key: PrivateKey) -> None:
    material = sign_image(key, "nvcr.io/nim/other", DIGEST)[form]
    assert verdict(material, keys=[key.public]).verdict == "other-repository"
    assert verdict(material, keys=[key.public], expected=Expected((DIGEST,), None)).verdict == "good"


@pytest.mark.parametrize("written", ["nvcr.io/nim/moonshotai/kimi-k2.5:1.7.0", f"{REPOSITORY}@{OTHER}", REPOSITORY])
def test_tags_of_a_signed_repository_say_nothing(written: str, key: PrivateKey) -> None:
    assert verdict(sign_image(key, written, DIGEST)[0], keys=[key.public]).verdict == "good"


def test_no_signature_is_none(key: PrivateKey) -> None:
    assert verdict(keys=[key.public]).verdict == "none"


def test_one_good_signature_among_bad_ones_is_enough(pairs: tuple[PrivateKey, PrivateKey]) -> None:
    bad = sign_image(pairs[1], REPOSITORY, DIGEST)
    junk = Material("sigstore-bundle", DIGEST, b"junk")
    found = verdict(*bad, junk, *sign_image(pairs[0], REPOSITORY, DIGEST), keys=[pairs[0].public])
    assert (found.verdict, found.seen) == ("good", 5)


def test_the_most_telling_verdict_is_the_one_of_all(pairs: tuple[PrivateKey, PrivateKey]) -> None:
    wrong = sign_image(pairs[1], REPOSITORY, DIGEST)[0]
    other = sign_image(pairs[0], REPOSITORY, OTHER)[0]
    found = verdict(Material("simple-signing", DIGEST, b"{}", "!"), wrong, other, keys=[pairs[0].public])
    assert found.verdict == "other-digest"
    assert OTHER in found.why


def test_no_more_than_sixty_four_are_looked_at(pairs: tuple[PrivateKey, PrivateKey]) -> None:
    bad = sign_image(pairs[1], REPOSITORY, DIGEST)[0]
    good = sign_image(pairs[0], REPOSITORY, DIGEST)[0]
    assert verdict(*[bad] * 64, good, keys=[pairs[0].public]).verdict == "wrong-key"


def resigned(key: PrivateKey, payload: bytes) -> Material:
    """A payload of one's own, rightly signed."""
    return Material("simple-signing", DIGEST, payload, base64.b64encode(key.sign(payload)).decode())


def simple(**changes: Any) -> bytes:
    critical = {
        "identity": {"docker-reference": REPOSITORY},
        "image": {"docker-manifest-digest": DIGEST},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": {**critical, **changes}, "optional": None}).encode()


@pytest.mark.parametrize(
    "payload",
    [
        simple(type="atomic container signature"),
        simple(image={"docker-manifest-digest": "sha512:" + "1" * 128}),
        simple(image={"docker-manifest-digest": DIGEST.upper()}),
        simple(image={"docker-manifest-digest": "sha256:" + "A" * 64}),
        simple(image={"docker-manifest-digest": DIGEST + "\n"}),
        simple(image={"docker-manifest-digest": [DIGEST]}),
        simple(image={"docker-manifest-digest": DIGEST, "Docker-manifest-digest": OTHER}),
        simple(image={}),
        simple(identity={}),
        simple(identity=None),
        simple().replace(b'"image"', b'"image": {"docker-manifest-digest": "' + OTHER.encode() + b'"}, "image"'),
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"critical": NaN}',
        b"[" * 100_000,
        b'{"critical": "' + b"x" * MAX_PAYLOAD + b'"}',
    ],
    ids=[
        "other type", "sha512", "upper case name", "upper case hex", "line end", "list", "digest twice by case",
        "no digest", "no repository", "no identity", "a name twice", "array", "null", "cut", "no utf-8", "NaN",
        "deep", "huge",
    ],
)  # fmt: skip
def test_what_is_signed_and_says_nothing_clear_is_malformed(payload: bytes, key: PrivateKey) -> None:
    assert verdict(resigned(key, payload), keys=[key.public]).verdict == "malformed"


def test_the_specification_writes_the_digest_with_a_capital(key: PrivateKey) -> None:
    payload = simple(image={"Docker-manifest-digest": DIGEST})
    assert verdict(resigned(key, payload), keys=[key.public]).verdict == "good"


@pytest.mark.parametrize(
    "change",
    [
        lambda m: replace(m, payload=m.payload.replace(b"1" * 64, b"3" * 64)),
        lambda m: replace(m, payload=m.payload + b" "),
        lambda m: replace(m, signature=base64.b64encode(bytes(70)).decode()),
        lambda m: replace(m, signature=base64.b64encode(base64.b64decode(m.signature) + b"\0").decode()),
    ],
    ids=["payload", "a space", "zeroes", "longer"],
)
def test_a_changed_signature_is_of_nobody(change: Callable[[Material], Material], key: PrivateKey) -> None:
    material = sign_image(key, REPOSITORY, DIGEST)[0]
    assert verdict(change(material), keys=[key.public]).verdict == "wrong-key"


@pytest.mark.parametrize("signature", ["", "%%%", "c2ln\n", "c2 ln", "\u00e9", "x" * 3])
def test_a_signature_that_is_no_base64(signature: str, key: PrivateKey) -> None:
    material = replace(sign_image(key, REPOSITORY, DIGEST)[0], signature=signature)
    assert verdict(material, keys=[key.public]).verdict in ("malformed", "wrong-key")


def test_no_flipped_bit_of_a_payload_or_a_signature_is_good(key: PrivateKey) -> None:
    material = sign_image(key, REPOSITORY, DIGEST)[0]
    for at in range(len(material.payload)):
        payload = bytearray(material.payload)
        payload[at] ^= 1 << at % 8
        assert verdict(replace(material, payload=bytes(payload)), keys=[key.public]).verdict == "wrong-key", at
    signature = base64.b64decode(material.signature)
    for at in range(len(signature)):
        flipped = bytearray(signature)
        flipped[at] ^= 1 << at % 8
        changed = replace(material, signature=base64.b64encode(bytes(flipped)).decode())
        assert verdict(changed, keys=[key.public]).verdict == "wrong-key", at


def test_a_flipped_bit_of_a_bundle_is_good_only_where_it_says_nothing(key: PrivateKey) -> None:
    material = sign_image(key, REPOSITORY, DIGEST)[1]
    envelope = json.loads(material.payload)["dsseEnvelope"]
    for at in range(len(material.payload)):
        payload = bytearray(material.payload)
        payload[at] ^= 1 << at % 7
        if verdict(replace(material, payload=bytes(payload)), keys=[key.public]).verdict == "good":
            found = json.loads(payload)["dsseEnvelope"]
            assert found["payload"] == envelope["payload"], at
            assert base64.b64decode(found["signatures"][0]["sig"]) == base64.b64decode(envelope["signatures"][0]["sig"])


def bundle(key: PrivateKey, change: Callable[[dict[str, Any]], object]) -> Material:
    material = sign_image(key, REPOSITORY, DIGEST)[1]
    document = json.loads(material.payload)
    change(document)
    return replace(material, payload=json.dumps(document).encode())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"), "malformed"),
        (lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle.v0.4+json"), "malformed"),
        (lambda d: d.pop("verificationMaterial"), "malformed"),
        (lambda d: d["verificationMaterial"].update(certificate={"rawBytes": ""}), "malformed"),
        (lambda d: d["dsseEnvelope"].update(payloadType="application/json"), "malformed"),
        (lambda d: d["dsseEnvelope"].update(payloadType="application/vnd.in-toto+json "), "malformed"),
        (lambda d: d["dsseEnvelope"].update(signatures=[]), "malformed"),
        (lambda d: d["dsseEnvelope"]["signatures"].append({"sig": "c2ln"}), "malformed"),
        (lambda d: d["dsseEnvelope"].update(payload="%%%"), "malformed"),
        (lambda d: d.update(messageSignature={}), "malformed"),
        (lambda d: d["dsseEnvelope"]["signatures"][0].update(sig="c2ln"), "wrong-key"),
        (lambda d: d["verificationMaterial"]["publicKey"].update(hint="another"), "good"),
        (lambda d: d["dsseEnvelope"]["signatures"][0].update(keyid="x"), "good"),
    ],
)  # fmt: skip
def test_bundles_with_something_changed(
    change: Callable[[dict[str, Any]], object], expected: str, key: PrivateKey
) -> None:
    assert verdict(bundle(key, change), keys=[key.public]).verdict == expected


def attested(key: PrivateKey, statement: dict[str, Any]) -> Material:
    payload = json.dumps(statement).encode()
    kind = b"application/vnd.in-toto+json"
    signature = key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))

    def change(document: dict[str, Any]) -> None:
        document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
        document["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(signature).decode()}]

    return bundle(key, change)


STATEMENT: dict[str, Any] = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"digest": {"sha256": "1" * 64}}],
    "predicateType": "https://sigstore.dev/cosign/sign/v1",
    "predicate": {},
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "good"),
        ({"subject": [{"digest": {"sha256": "2" * 64}}, {"digest": {"sha256": "1" * 64}}]}, "good"),
        ({"predicateType": "https://slsa.dev/provenance/v1"}, "none"),  # signed, and yet no signature of the image
        ({"predicateType": "https://cyclonedx.org/bom"}, "none"),
        ({"subject": [{"name": "a/b", "digest": {"sha256": "1" * 64}}]}, "other-repository"),
        ({"subject": [{"name": "a/b", "digest": {"sha256": "1" * 64}}, *STATEMENT["subject"]]}, "good"),
        ({"subject": [{"name": 7, "digest": {"sha256": "1" * 64}}]}, "malformed"),
        ({"subject": []}, "malformed"),
        ({"subject": [{"digest": {"sha512": "1" * 128}}]}, "malformed"),
        ({"subject": [{"digest": {"sha256": "1" * 63 + "A"}}]}, "malformed"),
        ({"subject": [{"digest": {"sha256": "2" * 64}}]}, "other-digest"),
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "malformed"),
    ],
)
def test_statements(changes: dict[str, Any], expected: str, key: PrivateKey) -> None:
    assert verdict(attested(key, {**STATEMENT, **changes}), keys=[key.public]).verdict == expected


def test_kinds_are_not_confused(key: PrivateKey) -> None:
    """The payload of one form, offered as the other, is not taken for a signature of it."""
    simple_form, bundle_form = sign_image(key, REPOSITORY, DIGEST)
    swapped = [replace(simple_form, kind="sigstore-bundle"), replace(bundle_form, kind="simple-signing")]
    assert verdict(*swapped, keys=[key.public]).verdict == "wrong-key"
    assert verdict(swapped[0], keys=[key.public]).verdict == "malformed"


def test_the_older_keyless_form_is_refused_in_words() -> None:
    material = Material("simple-signing", DIGEST, b"{}", "c2ln", {"dev.sigstore.cosign/certificate": "-----BEGIN"})
    found = judge([material], EXPECTED, [], [lambda _: (b"", "")])
    assert found.verdict == "unsupported"
    assert "older form" in found.why


MANIFEST = json.dumps({"config": {"digest": "sha256:" + "c" * 64}}).encode()
INDEX = json.dumps({"manifests": [{"digest": digest_of(MANIFEST)}, "junk"]}).encode()


def identity(digest: str | None, manifest: str | None, config: str | None = None) -> ImageIdentity:
    return ImageIdentity("nvcr.io/nim/x:1", digest, manifest, config, "linux/amd64")


@pytest.mark.parametrize(
    ("image", "documents", "expected"),
    [
        (identity(OTHER, DIGEST), [], [DIGEST]),  # the index is not at hand: its signature would prove nothing
        (identity(digest_of(INDEX), digest_of(MANIFEST)), [INDEX], [digest_of(MANIFEST), digest_of(INDEX)]),
        (identity(digest_of(INDEX), OTHER), [INDEX], [OTHER]),  # it does not list the manifest that starts
        (identity(digest_of(MANIFEST), None), [INDEX], [digest_of(MANIFEST), digest_of(INDEX)]),
        (identity(DIGEST, None), [b"junk"], [DIGEST]),
        (identity(None, None, "sha256:" + "c" * 64), [MANIFEST, INDEX], [digest_of(MANIFEST), digest_of(INDEX)]),
        (identity(None, None, "sha256:" + "d" * 64), [MANIFEST, INDEX], []),
        # docker itself pulled it by its index: the manifest's bytes name what it started
        (identity(digest_of(INDEX), None, "sha256:" + "c" * 64), [MANIFEST], [digest_of(INDEX), digest_of(MANIFEST)]),
        (identity(digest_of(INDEX), None, "sha256:" + "d" * 64), [MANIFEST], [digest_of(INDEX)]),
        (identity(None, None), [MANIFEST], []),
    ],
)
def test_which_digests_prove_the_bytes(image: ImageIdentity, documents: list[bytes], expected: list[str]) -> None:
    assert list(proving_digests(image, documents)) == expected


@pytest.mark.parametrize(
    ("others", "proves"),
    [
        ([{"os": "linux", "architecture": "arm64"}, {"os": "unknown", "architecture": "unknown"}], True),
        ([{"os": "linux", "architecture": "x86_64"}], False),  # which an engine takes for amd64
        ([{"os": "linux", "architecture": "amd64", "variant": "v3"}], False),
        ([{"os": "Linux", "architecture": "arm64"}], False),
        ([None], False),
    ],
)
def test_an_index_leads_to_the_one_manifest_that_an_engine_can_take(others: list[object], proves: bool) -> None:
    wanted = {"digest": digest_of(MANIFEST), "platform": {"os": "linux", "architecture": "amd64"}}
    entries = [{"digest": f"sha256:{number:064}", "platform": where} for number, where in enumerate(others)]
    index = json.dumps({"manifests": [wanted, *entries]}).encode()
    found = proving_digests(identity(digest_of(index), None), [index])
    assert (digest_of(MANIFEST) in found) is proves


def test_a_signature_may_write_its_registry_as_it_likes(key: PrivateKey) -> None:
    registry, _, path = REPOSITORY.partition("/")
    for form in sign_image(key, f"{registry.upper()}:443/{path}", DIGEST):
        assert verdict(form, keys=[key.public]).verdict == "good"


def test_what_proves_nothing_is_never_good(key: PrivateKey) -> None:
    material = sign_image(key, REPOSITORY, DIGEST)[1]
    assert verdict(material, keys=[key.public], expected=Expected((), REPOSITORY)).verdict == "other-digest"


def test_keys_of_other_kinds_verify(tmp_path: Path) -> None:
    payload = simple()
    p384, ed = ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()
    long = rsa.generate_private_key(65537, 2048)
    made = [
        (long.public_key(), long.sign(payload, padding.PKCS1v15(), hashes.SHA256())),
        (ed.public_key(), ed.sign(payload)),
        (p384.public_key(), p384.sign(payload, ec.ECDSA(hashes.SHA256()))),
        (p384.public_key(), p384.sign(payload, ec.ECDSA(hashes.SHA384()))),
    ]
    for number, (public, signature) in enumerate(made):
        path = tmp_path / f"{number}.pub"
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))
        material = Material("simple-signing", DIGEST, payload, base64.b64encode(signature).decode())
        assert verdict(material, keys=[read_public(path)]).verdict == "good", number
