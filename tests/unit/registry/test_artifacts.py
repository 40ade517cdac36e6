"""Signatures are found in both layouts, artifacts pushed to old and new registries, and nothing large is believed."""

import json

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.signatures import BUNDLE_TYPES, MAX_MATERIALS, MAX_PAYLOAD, Material
from nimctl.registry.artifacts import SIGNATURE, SIMPLE_SIGNING, signatures_of
from nimctl.registry.manifests import OCI_MANIFEST
from nimctl.registry.pushing import Layer, push_artifact, push_signature
from nimctl.registry.reference import Reference, parse
from tests.lib.memory_registry import MemoryRegistry, digest_of, memory_registry

ANNOTATIONS = {"dev.sigstore.cosign/chain": "-----BEGIN CERTIFICATE-----"}


def of(registry: MemoryRegistry, repository: str = "open/trust") -> Reference:
    return parse(f"{registry.address}/{repository}:1")


@pytest.mark.parametrize("referrers", [True, False], ids=["OCI 1.1", "before"])
def test_what_is_pushed_is_found_again(referrers: bool) -> None:
    with memory_registry(referrers=referrers) as registry:
        digest = registry.image("open/trust", "1")
        pushed = [
            Material("simple-signing", digest, b'{"a": 1}', "c2ln", ANNOTATIONS),
            Material("simple-signing", digest, b'{"a": 2}', "b3RoZXI="),
            Material("sigstore-bundle", digest, b'{"b": 1}'),
            Material("sigstore-bundle", digest, b'{"b": 2}'),
        ]
        for material in pushed:
            push_signature(of(registry), None, material)
        assert sorted(signatures_of(of(registry), [digest], None), key=lambda m: m.payload) == pushed
        assert (f"open/trust/{digest.replace(':', '-')}" in registry.manifests) is not referrers


def test_no_signature_is_no_error() -> None:
    with memory_registry() as registry:
        assert signatures_of(of(registry), [registry.image("open/trust", "1")], None) == ()


def test_the_layout_is_that_of_cosign() -> None:
    with memory_registry() as registry:
        digest = registry.image("open/trust", "1")
        push_signature(of(registry), None, Material("simple-signing", digest, b"{}", "c2ln"))
        push_signature(of(registry), None, Material("sigstore-bundle", digest, b'{"b": 1}'))
        simple = json.loads(registry.manifests[f"open/trust/{digest.replace(':', '-')}.sig"][1])
        assert [layer["mediaType"] for layer in simple["layers"]] == [SIMPLE_SIGNING]
        assert simple["layers"][0]["annotations"] == {SIGNATURE: "c2ln"}
        (entry,) = json.loads(registry.referring("open/trust", digest))["manifests"]
        assert entry["artifactType"] == BUNDLE_TYPES[0]
        assert entry["annotations"]["dev.sigstore.bundle.predicateType"] == "https://sigstore.dev/cosign/sign/v1"
        manifest = json.loads(registry.manifests[f"open/trust/{entry['digest']}"][1])
        assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
        assert manifest["subject"]["digest"] == digest
        assert [layer["mediaType"] for layer in manifest["layers"]] == [BUNDLE_TYPES[0]]


def test_an_attestation_is_no_signature() -> None:
    with memory_registry() as registry:
        digest = registry.image("open/trust", "1")
        push_artifact(
            of(registry),
            None,
            artifact_type=BUNDLE_TYPES[0],
            layers=[Layer(BUNDLE_TYPES[0], b'{"sbom": 1}')],
            subject=digest,
            annotations={"dev.sigstore.bundle.predicateType": "https://cyclonedx.org/bom"},
        )
        assert signatures_of(of(registry), [digest], None) == ()


def test_a_subject_that_is_not_there_is_refused_before_anything_is_pushed() -> None:
    with memory_registry() as registry:
        with pytest.raises(NimctlError) as raised:
            push_artifact(of(registry), None, artifact_type="x/y", layers=[], subject="sha256:" + "0" * 64)
        assert raised.value.id == "image-not-found"
        assert not registry.blobs


def test_a_hundred_signatures_are_not_all_fetched() -> None:
    with memory_registry() as registry:
        digest = registry.image("open/trust", "1")
        layers = []
        for number in range(100):
            payload = b"%d" % number
            registry.blobs[digest_of(payload)] = payload
            entry = {"mediaType": SIMPLE_SIGNING, "digest": digest_of(payload), "size": len(payload)}
            layers.append({**entry, "annotations": {SIGNATURE: "c2ln"}})
        document = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers}
        registry.put("open/trust", document, f"{digest.replace(':', '-')}.sig")
        assert len(signatures_of(of(registry), [digest], None)) == MAX_MATERIALS


def test_the_newest_signatures_are_looked_at() -> None:
    with memory_registry() as registry:
        digest = registry.image("open/trust", "1")
        for number in range(3):
            push_signature(of(registry), None, Material("simple-signing", digest, b"%d" % number, "c2ln"))
        (entry,) = (body for name, (_, body) in registry.manifests.items() if name.endswith(".sig"))
        layers = json.loads(entry)["layers"]
        document = {"mediaType": OCI_MANIFEST, "layers": [*layers[:1] * MAX_MATERIALS, *layers[1:]]}
        registry.put("open/trust", document, f"{digest.replace(':', '-')}.sig")
        found = signatures_of(of(registry), [digest], None)
        assert [material.payload for material in found[:3]] == [b"2", b"1", b"0"]


def bundle_of(registry: MemoryRegistry, digest: str, payload: bytes) -> dict[str, object]:
    """A bundle in the registry, and its line in a list of referrers."""
    push_signature(of(registry), None, Material("sigstore-bundle", digest, payload))
    found: dict[str, object] = json.loads(registry.referring("open/trust", digest))["manifests"][-1]
    return found


def test_a_list_of_referrers_is_read_to_its_end() -> None:
    with memory_registry() as registry:
        digest = registry.image("open/trust", "1")
        path = f"/v2/open/trust/referrers/{digest}"
        entry = bundle_of(registry, digest, b'{"b": 1}')
        boms = [{"digest": "sha256:" + "0" * 64, "artifactType": "application/spdx+json"}]
        registry.lies[path] = (200, json.dumps({"manifests": boms}).encode())
        registry.links[path] = f'<{path}/2?n=1>; rel="next"'
        registry.lies[f"{path}/2"] = (200, json.dumps({"manifests": [entry]}).encode())
        assert [material.payload for material in signatures_of(of(registry), [digest], None)] == [b'{"b": 1}']
        registry.links[f"{path}/2"] = f"<{path}/2?n=1>; rel=next"  # without end
        assert len(signatures_of(of(registry), [digest], None)) == 1
        for wrong in ("<ftp://127.0.0.1/x>; rel=next", "<http://[x>; rel=next"):
            registry.links[path] = wrong
            with pytest.raises(NimctlError, match="image-pull-failed"):
                signatures_of(of(registry), [digest], None)


def test_entries_that_hold_no_signature_are_not_asked_for_without_end() -> None:
    with memory_registry() as registry:
        digest = registry.image("open/trust", "1")
        path = f"/v2/open/trust/referrers/{digest}"
        entries = [{"digest": f"sha256:{number:064x}", "artifactType": BUNDLE_TYPES[0]} for number in range(500)]
        registry.lies[path] = (200, json.dumps({"manifests": entries}).encode())
        assert signatures_of(of(registry), [digest], None) == ()
        assert sum(f"sha256:{'0' * 60}" in asked for asked in registry.seen) == MAX_MATERIALS


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "file:///x", "http://[x"])
def test_an_upload_goes_to_an_address_of_http(location: str) -> None:
    with memory_registry() as registry:
        digest = registry.image("open/trust", "1")
        registry.uploads = location
        with pytest.raises(NimctlError, match="image-pull-failed"):
            push_signature(of(registry), None, Material("simple-signing", digest, b"{}", "c2ln"))


@pytest.mark.parametrize(
    "layer",
    [
        {"mediaType": SIMPLE_SIGNING, "digest": "sha256:" + "a" * 64, "size": MAX_PAYLOAD + 1},
        {"mediaType": SIMPLE_SIGNING, "digest": "sha512:" + "a" * 128, "size": 10},
        {"mediaType": SIMPLE_SIGNING, "digest": "SHA256:" + "A" * 64, "size": 10},
        {"mediaType": SIMPLE_SIGNING, "digest": "../../other", "size": 10},
        {"mediaType": SIMPLE_SIGNING, "digest": "sha256:" + "a" * 64, "size": -1},
        {"mediaType": SIMPLE_SIGNING, "digest": "sha256:" + "a" * 64, "size": 10},
        {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:" + "a" * 64, "size": 10},
        "junk",
    ],
    ids=["huge", "sha512", "upper case", "path", "negative", "not there", "other media type", "no object"],
)
def test_what_is_no_signature_is_passed_over(layer: object) -> None:
    with memory_registry() as registry:
        digest = registry.image("open/trust", "1")
        layers = [{**layer, "annotations": {SIGNATURE: "c2ln"}}] if isinstance(layer, dict) else [layer]
        document = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers}
        registry.put("open/trust", document, f"{digest.replace(':', '-')}.sig")
        assert signatures_of(of(registry), [digest], None) == ()


def test_a_payload_with_another_digest_is_refused() -> None:
    with memory_registry() as registry:
        digest = registry.image("open/trust", "1")
        push_signature(of(registry), None, Material("simple-signing", digest, b"{}", "c2ln"))
        registry.lies[f"/v2/open/trust/blobs/{digest_of(b'{}')}"] = (200, b'{"other": 1}')
        with pytest.raises(NimctlError) as raised:
            signatures_of(of(registry), [digest], None)
        assert raised.value.id == "image-tampered"


def test_signatures_that_cannot_be_asked_for_are_not_missing_ones() -> None:
    with memory_registry() as registry:
        digest = registry.image("open/trust", "1")
        registry.lies[f"/v2/open/trust/referrers/{digest}"] = (403, b"")
        with pytest.raises(NimctlError):
            signatures_of(of(registry), [digest], None)
