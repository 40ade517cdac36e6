"""The token protocol: challenges, tokens, digests, redirects."""

import json

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.registry.client import Challenge, parse_challenge
from nimctl.registry.denial import terms_page
from nimctl.registry.entitlement import resolve_digest
from nimctl.registry.login import TOKEN_USER, Login
from nimctl.registry.reference import parse
from nimctl.registry.transport import send
from tests.lib.little_registry import DIGEST, MANIFEST, TOKEN, USER, Answer, little_registry


@pytest.fixture
def registry():
    with little_registry() as running:
        yield running


@pytest.fixture
def foreign():
    with little_registry() as running:
        yield running


def login(registry) -> Login:
    return Login(USER, Secret(registry.key))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), None),
        (("Negotiate",), None),
        (("Bearer service=x",), None),
        (
            ('Bearer realm="https://nvcr.io/proxy_auth",scope="repository:a:pull,push"',),
            Challenge("bearer", "https://nvcr.io/proxy_auth", "", "repository:a:pull,push"),
        ),
        (('Basic realm="x"',), Challenge("basic")),
        (('basic realm="x"', "BEARER realm=https://t/,service=s"), Challenge("bearer", "https://t/", "s")),
        (('Bearer realm="https://t/\\"q\\""',), Challenge("bearer", 'https://t/"q"')),
    ],
)
def test_challenges(lines, expected):
    assert parse_challenge(lines) == expected


def test_a_tag_becomes_its_digest_and_the_index_is_asked_for(registry):
    assert resolve_digest(parse(f"{registry.address}/nim/a/b:1"), login(registry)) == DIGEST
    ping, token, manifest = registry.seen
    assert (ping.path, ping.authorization) == ("/v2/", None)
    assert token.query == {"service": ["little"], "scope": ["repository:nim/a/b:pull"], "account": [USER]}
    assert token.authorization == registry.basic
    assert (manifest.method, manifest.path) == ("HEAD", "/v2/nim/a/b/manifests/1")
    assert manifest.authorization == f"Bearer {TOKEN}", "the key itself goes to the token service only"
    assert manifest.accept is not None
    for kind in ("oci.image.index.v1", "docker.distribution.manifest.list.v2", "oci.image.manifest.v1"):
        assert kind in manifest.accept


def test_without_a_login_an_anonymous_token_is_used(registry):
    assert resolve_digest(parse(f"{registry.address}/a/b"), None) == DIGEST
    assert registry.seen[1].authorization is None
    assert "account" not in registry.seen[1].query


def test_a_refresh_token_is_exchanged_by_post(registry):
    registry.token = lambda r: Answer(200, json.dumps({"access_token": TOKEN}).encode()) if r.method == "POST" else None
    assert resolve_digest(parse(f"{registry.address}/a/b"), Login(TOKEN_USER, Secret("refresh-me"))) == DIGEST
    assert b"grant_type=refresh_token" in registry.seen[1].body
    assert b"refresh_token=refresh-me" in registry.seen[1].body


def test_a_registry_with_basic_authentication(registry):
    registry.challenge = 'Basic realm="x"'
    registry.manifest = lambda r: Answer(200, MANIFEST) if r.authorization == registry.basic else registry.good_ping(r)
    assert resolve_digest(parse(f"{registry.address}/a/b"), login(registry)) == DIGEST


def test_a_registry_without_any_authentication(registry):
    registry.ping = lambda _: Answer()
    registry.manifest = lambda _: Answer(200, MANIFEST, {"Docker-Content-Digest": DIGEST})
    assert resolve_digest(parse(f"{registry.address}/a/b"), login(registry)) == DIGEST
    assert {request.authorization for request in registry.seen} == {None}, "the key stays here"


def test_the_digest_is_computed_where_head_is_not_known_or_names_none(registry):
    for head in (Answer(405), Answer(200), Answer(200, headers={"Docker-Content-Digest": "md5:x"})):
        registry.manifest = lambda r, head=head: head if r.method == "HEAD" else Answer(200, MANIFEST)
        assert resolve_digest(parse(f"{registry.address}/a/b"), None) == DIGEST


def test_a_digest_that_lies_is_refused(registry):
    other = "sha256:" + "0" * 64
    reference = parse(f"{registry.address}/a/b@{other}")
    with pytest.raises(NimctlError) as caught:
        resolve_digest(reference, None)
    assert caught.value.id == "image-pull-failed"
    assert DIGEST in caught.value.cause
    registry.manifest = lambda r: Answer(405 if r.method == "HEAD" else 200, MANIFEST, {"Docker-Content-Digest": other})
    with pytest.raises(NimctlError) as caught:
        resolve_digest(parse(f"{registry.address}/a/b:1"), None)
    assert caught.value.id == "image-pull-failed"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_follows_a_redirect_to_its_own_host_and_to_no_other(registry, foreign, status):
    headers = {"Authorization": registry.basic}
    registry.ping = lambda _: Answer(status, headers={"Location": f"http://{foreign.address}/v2/"})
    foreign.ping = lambda _: Answer(status, headers={"Location": f"http://{registry.address}/token"})
    registry.token = lambda _: Answer(200, b"arrived")
    assert send("GET", f"http://{registry.address}/v2/", headers).body == b"arrived"
    assert [r.authorization for r in foreign.seen] == [None]
    assert [r.authorization for r in registry.seen] == [registry.basic, None], "what was dropped does not come back"
    registry.ping = lambda _: Answer(status, headers={"Location": "/token"})
    send("GET", f"http://{registry.address}/v2/", headers)
    assert registry.seen[-1].authorization == registry.basic


@pytest.mark.parametrize("location", ["/v2/", "file:///etc/hostname", "ftp://127.0.0.1/", "gopher://x"])
def test_redirects_end(registry, location):
    registry.ping = lambda _: Answer(302, headers={"Location": location})
    with pytest.raises(NimctlError) as caught:
        send("GET", f"http://{registry.address}/v2/")
    assert caught.value.id == "image-pull-failed"
    assert len(registry.seen) <= 6


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_what_is_sent_follows_no_redirect(registry, foreign, method):
    registry.ping = lambda _: Answer(307, headers={"Location": f"http://{foreign.address}/v2/"})
    assert send(method, f"http://{registry.address}/v2/", data=b"secret").status == 307
    assert foreign.seen == []


@pytest.mark.parametrize("realm", ["file:///etc/hostname", "ftp://127.0.0.1/", "http://[bad/", "token"])
def test_a_token_service_is_an_address_of_http(registry, realm):
    registry.challenge = f'Bearer realm="{realm}"'
    with pytest.raises(NimctlError) as caught:
        resolve_digest(parse(f"{registry.address}/a/b"), login(registry))
    assert caught.value.id == "image-pull-failed"


def test_terms_pages():
    assert terms_page(parse("nvcr.io/nim/moonshotai/kimi-k2.5-turbo:1.0.0")) == (
        "https://catalog.ngc.nvidia.com/orgs/nim/teams/moonshotai/containers/kimi-k2.5-turbo"
    )
    assert terms_page(parse("nvcr.io/nvidia/cuda")) == "https://catalog.ngc.nvidia.com/orgs/nvidia/containers/cuda"
    assert terms_page(parse("ghcr.io/a/b")) == "the page of a/b on ghcr.io"
