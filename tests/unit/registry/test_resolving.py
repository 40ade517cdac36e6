"""A name becomes one image, whose digests follow from its bytes; its content is read from any offset."""

import json
from collections.abc import Iterator

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.registry import blobs, patience
from nimctl.registry.login import Login
from nimctl.registry.reference import parse
from nimctl.registry.repository import open_repository
from nimctl.registry.resolving import resolve_image
from nimctl.registry.session import enter
from tests.lib.little_registry import USER, Answer, LittleRegistry, little_registry
from tests.lib.remote_images import INDEX, MANIFEST, Shelf, digest, make_image, make_index

AMD, ARM = make_image("linux/amd64", labels={"who": "me"}), make_image("linux/arm64")


@pytest.fixture
def registry() -> Iterator[LittleRegistry]:
    with little_registry() as running:
        yield running


def held(registry: LittleRegistry, *images, tag="1") -> str:
    shelf = Shelf()
    found = shelf.put(tag, *images)
    registry.content = shelf.content
    return found


def resolve(registry: LittleRegistry, target=":1", platform="linux/amd64"):
    login = Login(USER, Secret(registry.key))
    return resolve_image(parse(f"{registry.address}/a/b{target}"), login, platform, name="a/b:1")


def test_a_tag_becomes_three_digests_and_no_layer_is_touched(registry):
    index = held(registry, AMD, ARM)
    found = resolve(registry)
    assert found.identity.digests == (index, digest(AMD.manifest), digest(AMD.config))
    assert (found.identity.reference, found.identity.platform) == ("a/b:1", "linux/amd64")
    assert (found.manifest, found.config, found.labels) == (AMD.manifest, AMD.config, {"who": "me"})
    assert found.index is not None and digest(found.index) == index
    assert [layer.digest for layer in found.layers] == [digest(layer) for layer in AMD.layers]
    assert found.size == sum(map(len, AMD.layers))
    asked = [request.path for request in registry.seen]
    assert not [path for path in asked if any(path.endswith(digest(layer)) for layer in AMD.layers)]
    assert sum(path.startswith("/token") for path in asked) == 1


def test_an_image_without_an_index_has_two(registry):
    assert held(registry, AMD) == digest(AMD.manifest)
    found = resolve(registry)
    assert found.identity.digests == (digest(AMD.manifest), digest(AMD.config))
    assert found.index is None


@pytest.mark.parametrize("images", [(AMD,), (AMD, make_image("linux/s390x"))])
def test_a_platform_that_is_not_there_names_those_that_are(registry, images):
    held(registry, *images)
    with pytest.raises(NimctlError) as caught:
        resolve(registry, platform="linux/arm64")
    assert caught.value.id == "platform-missing" and "linux/amd64" in caught.value.cause


def test_an_entry_without_a_platform_is_judged_by_its_configuration(registry):
    shelf = Shelf()
    index = json.loads(make_index(ARM))
    del index["manifests"][0]["platform"]
    shelf.put("1", ARM, index=json.dumps(index).encode())
    registry.content = shelf.content
    assert resolve(registry, platform="linux/arm64").identity.config == digest(ARM.config)
    with pytest.raises(NimctlError) as caught:
        resolve(registry)
    assert caught.value.id == "platform-missing" and "it exists for linux/arm64" in caught.value.cause


def test_a_digest_is_asked_for_and_checked(registry):
    index = held(registry, AMD, ARM)
    assert resolve(registry, f"@{index}").identity.digest == index
    registry.content[index] = (INDEX, registry.content[index][1] + b" ")
    with pytest.raises(NimctlError) as caught:
        resolve(registry, f"@{index}")
    assert (caught.value.id, caught.value.exit_code) == ("image-tampered", 5)


@pytest.mark.parametrize("part", [AMD.manifest, AMD.config])
def test_each_part_must_have_the_digest_by_which_it_is_named(registry, part):
    held(registry, AMD, ARM)
    kind, body = registry.content[digest(part)]
    registry.content[digest(part)] = (kind, body.replace(b"linux", b"Linux") + b" ")
    with pytest.raises(NimctlError) as caught:
        resolve(registry)
    assert caught.value.id == "image-tampered" and digest(part) in caught.value.cause


def test_a_header_that_names_another_digest_than_the_bytes_have(registry):
    held(registry, AMD)
    registry.manifest = lambda _: Answer(200, AMD.manifest, {"Docker-Content-Digest": digest(b"other")})
    with pytest.raises(NimctlError) as caught:
        resolve(registry)
    assert caught.value.id == "image-tampered"


@pytest.mark.parametrize("stumbles", ["/v2/", "/token", "/manifests/1", "/blobs/"])
def test_a_registry_that_stumbles_once_is_asked_again(registry, monkeypatch, stumbles):
    monkeypatch.setattr(patience, "_PAUSE", 0)
    held(registry, AMD)
    good, failed = registry.answer, []

    def answer(request):
        path = request.path.partition("?")[0]
        if not failed and (path == stumbles if stumbles in ("/v2/", "/token") else stumbles in path):
            failed.append(path)
            return Answer(503)
        return good(request)

    registry.answer = answer
    assert resolve(registry).identity.config == digest(AMD.config) and failed


def test_a_token_that_runs_out_while_something_is_pushed_is_asked_for_again(registry):
    challenge = f'Bearer realm="http://{registry.address}/token",service="little",error="invalid_token"'
    refused = []

    def answer(request):
        if request.method == "POST" and not refused:
            refused.append(request)
            return Answer(401, headers={"WWW-Authenticate": challenge})
        return Answer(201)

    registry.manifest = answer
    repository = open_repository(parse(f"{registry.address}/a/b:1"), Login(USER, Secret(registry.key)), "pull,push")
    assert repository.ask("POST", "manifests/1", data=b"{}").status == 201 and refused
    scopes = [request.query["scope"] for request in registry.seen if request.path.startswith("/token")]
    assert scopes == [["repository:a/b:pull,push"]] * 2


def test_an_index_in_an_index_is_no_image(registry):
    inner = Shelf()
    index = inner.put("1", AMD, ARM)
    held(registry, AMD, ARM)
    registry.content[digest(AMD.manifest)] = (INDEX, b"")
    registry.content |= inner.content
    nested = b'{"schemaVersion":2,"manifests":[{"mediaType":"%s","digest":"%s","size":1,"platform":{"os":"linux",' % (
        MANIFEST.encode(),
        index.encode(),
    )
    registry.content["1"] = (INDEX, nested + b'"architecture":"amd64"}}]}')
    registry.content[index] = (INDEX, inner.content[index][1])
    with pytest.raises(NimctlError) as caught:
        resolve(registry)
    assert caught.value.id == "image-incompatible"


BODY = bytes(range(256)) * 9000  # more than two blocks
NAME = digest(BODY)


def blob(registry: LittleRegistry, offset=0) -> bytes:
    login = Login(USER, Secret(registry.key))
    return b"".join(blobs.open_blob(parse(f"{registry.address}/a/b:1"), NAME, login, offset=offset))


def test_a_blob_comes_whole(registry):
    registry.content = {NAME: ("", BODY)}
    assert blob(registry) == BODY


@pytest.mark.parametrize("ranges", [True, False])
def test_a_blob_goes_on_where_it_was_cut_even_where_ranges_are_unknown(registry, ranges):
    registry.content = {NAME: ("", BODY)}
    start = len(BODY) // 2 + 7

    def answer(_):
        return Answer(206, BODY[start:], {"Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"})

    registry.manifest = None
    if ranges:
        registry.good_manifest = answer  # type: ignore[method-assign]
    assert blob(registry, start) == BODY[start:]


@pytest.mark.parametrize(
    ("answer", "error_id"),
    [
        (Answer(200, BODY[:-1]), "image-tampered"),
        (Answer(200, BODY[:-1] + b"!"), "image-tampered"),
        (Answer(200, BODY[:-9], {"Content-Length": str(len(BODY))}), "image-pull-failed"),
        (Answer(206, BODY, {"Content-Range": "bytes 5-9/10"}), "image-pull-failed"),
        (Answer(404), "image-not-found"),
        (Answer(503), "image-pull-failed"),
    ],
)
def test_a_blob_that_is_not_what_it_should_be(registry, answer, error_id):
    registry.good_manifest = lambda _: answer  # type: ignore[method-assign]
    with pytest.raises(NimctlError) as caught:
        blob(registry)
    assert caught.value.id == error_id


def test_a_range_that_was_not_asked_for_is_refused(registry):
    registry.good_manifest = lambda _: Answer(206, BODY[3:], {"Content-Range": "bytes 3-9/10"})  # type: ignore[method-assign]
    with pytest.raises(NimctlError) as caught:
        blob(registry, 4)
    assert caught.value.id == "image-pull-failed" and "from byte 4" in caught.value.cause


def test_what_is_read_whole_has_a_limit(registry):
    registry.content = {NAME: ("", BODY)}
    session = enter(parse(f"{registry.address}/a/b:1"), Login(USER, Secret(registry.key)))
    assert blobs.read_blob(session, NAME, limit=len(BODY)) == BODY
    with pytest.raises(NimctlError) as caught:
        blobs.read_blob(session, NAME, limit=len(BODY) - 1)
    assert caught.value.id == "image-pull-failed"
