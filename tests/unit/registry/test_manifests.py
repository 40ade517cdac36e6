"""Indexes, manifests and configurations are read as they are, and nothing else is taken for one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.errors import NimctlError
from nimctl.registry import manifests
from nimctl.registry.manifests import Index, Manifest
from tests.lib.remote_images import CONFIG, INDEX, MANIFEST, digest, make_image, make_index

AMD, ARM = make_image("linux/amd64"), make_image("linux/arm64/v8")


def index(*images, **changed):
    found = manifests.read(make_index(*images, **changed), INDEX, "x:1")
    assert isinstance(found, Index)
    return found


def refused(body, kind=MANIFEST):
    with pytest.raises(NimctlError) as caught:
        manifests.read(body if isinstance(body, bytes) else json.dumps(body).encode(), kind, "x:1")
    return caught.value


def test_attestations_are_no_platform():
    found = index(AMD, ARM)
    assert [entry.platform for entry in found.entries] == ["linux/amd64", "linux/arm64/v8"]


def test_an_attestation_is_known_by_its_annotation_alone_too():
    document = json.loads(make_index(AMD))
    document["manifests"][1]["platform"] = {"os": "linux", "architecture": "amd64"}
    document["manifests"].reverse()
    found = manifests.read(json.dumps(document).encode(), INDEX, "x:1")
    assert isinstance(found, Index)
    assert manifests.choose(found, "linux/amd64", "x:1").digest == digest(AMD.manifest)


@pytest.mark.parametrize("absent", [("mediaType",), ("platform",), ("mediaType", "platform")])
def test_the_only_entry_need_not_say_what_it_is(absent):
    document = json.loads(make_index(AMD))
    for name in absent:
        del document["manifests"][0][name]
    found = manifests.read(json.dumps(document).encode(), INDEX, "x:1")
    assert isinstance(found, Index)
    assert manifests.choose(found, "linux/amd64", "x:1").digest == digest(AMD.manifest)


def test_of_several_entries_that_say_no_platform_none_is_taken():
    document = json.loads(make_index(AMD, ARM))
    for entry in document["manifests"]:
        entry.pop("platform")
    found = manifests.read(json.dumps(document).encode(), INDEX, "x:1")
    with pytest.raises(NimctlError) as caught:
        manifests.choose(found, "linux/amd64", "x:1")
    assert caught.value.id == "platform-missing" and "an unnamed platform" in caught.value.cause


@pytest.mark.parametrize("platform", ["linux/arm64", "linux/arm64/v8"])
def test_the_variant_that_all_have_may_be_left_out(platform):
    assert manifests.choose(index(AMD, ARM), platform, "x:1").digest == digest(ARM.manifest)


def test_a_variant_that_not_all_have_is_not_taken_for_the_architecture():
    with pytest.raises(NimctlError) as caught:
        manifests.choose(index(make_image("linux/amd64/v3"), ARM), "linux/amd64", "x:1")
    assert (caught.value.id, caught.value.exit_code) == ("platform-missing", 5)
    assert "linux/amd64/v3, linux/arm64/v8" in caught.value.cause


def test_a_manifest_names_its_layers_in_order_with_their_sizes():
    found = manifests.read(AMD.manifest, "", "x:1")
    assert isinstance(found, Manifest)
    assert [(layer.digest, layer.size) for layer in found.layers] == [(digest(b), len(b)) for b in AMD.layers]
    assert found.config.digest == digest(AMD.config)


def test_dockers_own_kinds_are_read_as_well():
    docker = "application/vnd.docker"
    image = make_image(
        says={
            "mediaType": f"{docker}.distribution.manifest.v2+json",
            "config": {"mediaType": f"{docker}.container.image.v1+json", "digest": digest(AMD.config), "size": 3},
            "layers": [{"mediaType": f"{docker}.image.rootfs.diff.tar.gzip", "digest": digest(b"x"), "size": 1}],
        }
    )
    assert isinstance(manifests.read(image.manifest, "", "x:1"), Manifest)
    listed = make_index(AMD, mediaType=f"{docker}.distribution.manifest.list.v2+json")
    assert isinstance(manifests.read(listed, "", "x:1"), Index)


HELM = {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest(b"c"), "size": 1}
ODD = {"mediaType": "application/vnd.acme.layer", "digest": digest(b"l"), "size": 1}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (make_image(says={"config": HELM}).manifest, "helm"),
        (make_image(says={"layers": [ODD]}).manifest, "vnd.acme.layer"),
        (
            make_image(says={"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}).manifest,
            "prettyjws",
        ),
        (make_image(says={"mediaType": "application/vnd.acme.thing+json"}).manifest, "vnd.acme.thing"),
        (make_image(says={"manifests": []}).manifest, "at once"),
        (make_index(AMD, layers=[]), "at once"),
        (make_image(says={"layers": None}).manifest, "layers"),
        (make_image(says={"config": {"mediaType": CONFIG, "digest": "md5:1", "size": 1}}).manifest, "md5:1"),
        (make_image(says={"config": {"mediaType": CONFIG, "digest": digest(b""), "size": -1}}).manifest, "-1"),
        (make_index(AMD, manifests=[{"mediaType": MANIFEST, "digest": "../../etc", "size": 1}]), "etc"),
    ],
)
def test_what_is_no_image_is_one_clear_error(body, word):
    error = refused(body)
    assert (error.id, error.exit_code) == ("image-incompatible", 5)
    assert word in error.cause


@pytest.mark.parametrize(
    ("body", "kind"), [(b"<html>log in</html>", "text/html"), ({"ok": True}, "application/json"), (b"[]", "")]
)
def test_the_page_of_a_proxy_is_no_manifest(body, kind):
    error = refused(body, kind)
    assert error.id == "image-pull-failed" and "proxy" in error.fix


def test_the_configuration_tells_platform_and_labels():
    config = manifests.read_config(make_image(labels={"a": "b"}).config, "x:1")
    assert (config.platform, dict(config.labels), len(config.diff_ids)) == ("linux/amd64", {"a": "b"}, 2)
    manifests.require_platform(config, "linux/amd64", "x:1")
    with pytest.raises(NimctlError) as caught:
        manifests.require_platform(config, "linux/arm64", "x:1")
    assert caught.value.id == "platform-missing" and "linux/amd64" in caught.value.cause
    for body in (b"nonsense", b"[]", b'{"config": 3}', b'{"rootfs": {"diff_ids": 3}}'):
        with pytest.raises(NimctlError) as caught:
            manifests.read_config(body, "x:1")
        assert caught.value.id == "image-incompatible"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["mediaType", "manifests", "config", "layers", "platform", "annotations", "size", "digest"]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.sampled_from([INDEX, MANIFEST, "text/html"]))
def test_nothing_that_a_registry_may_say_is_a_bug_here(document, kind):
    document.pop("mediaType", None)
    for body in (document, {"manifests": [document]}, {"config": document, "layers": [document]}):
        try:
            manifests.read(json.dumps(body).encode(), kind, "x:1")
        except NimctlError as error:
            assert error.id in ("image-incompatible", "image-pull-failed")
