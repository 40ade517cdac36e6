"""Fault: the registry does not give the image, and says so in each way that it has. No blob is ever asked for."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from nimctl.core.secret import Secret
from nimctl.registry.entitlement import Entitlement, probe
from nimctl.registry.login import TOKEN_USER, Login
from nimctl.registry.reference import parse
from tests.lib import lab
from tests.lib.little_registry import DIGEST, USER, Answer, errors, little_registry

HERE, ELSEWHERE = "linux/amd64", "linux/ppc64le"
INVALID = 'Bearer realm="http://{}/token",service="little",error="invalid_token"'


@pytest.fixture
def registry():
    with little_registry() as running:
        yield running


def asked(registry, image: str = "nim/a/b:1", *, key: str | None = None, seconds: float | None = None) -> Entitlement:
    login = Login(USER, Secret(key or registry.key))
    return probe(parse(f"{registry.address}/{image}"), login, HERE, seconds=seconds)


def index(*platforms: str, kind: str = "application/vnd.oci.image.index.v1+json") -> Answer:
    entries = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": DIGEST,
            "size": 1,
            "platform": dict(zip(("os", "architecture"), name.split("/"), strict=True)),
        }
        for name in platforms
    ]
    body = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    return Answer(200, body, {"Content-Type": kind, "Docker-Content-Digest": digest})


def test_one_look_at_the_head_is_enough_where_there_is_no_index(registry):
    found = asked(registry)
    assert (found.verdict, found.digest, found.platform, found.error) == ("granted", DIGEST, None, None)
    assert [r.method for r in registry.seen if "/manifests/" in r.path] == ["HEAD"]


@pytest.mark.parametrize(("platforms", "verdict", "platform"), [
    ((ELSEWHERE, HERE), "granted", HERE),
    ((ELSEWHERE,), "architecture-missing", None),
    ((), "architecture-missing", None),
])  # fmt: skip
def test_an_index_says_which_platforms_there_are(registry, platforms, verdict, platform):
    registry.manifest = lambda _: index(*platforms)
    found = asked(registry)
    assert (found.verdict, found.platform) == (verdict, platform)
    if found.error:
        assert found.error.id == "platform-missing"
        assert ELSEWHERE in found.error.cause or not platforms


@pytest.mark.parametrize(
    ("kind", "body", "error_id"),
    [
        ("application/vnd.example.thing.v7+json", b"{}", "image-incompatible"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", b"{}", "image-incompatible"),
        ("text/html", b"<html>Welcome to the hotel</html>", "image-pull-failed"),
        ("application/vnd.oci.image.index.v1+json", b"[]", "image-pull-failed"),
        ("application/vnd.oci.image.index.v1+json", b'{"manifests": 5}', "image-incompatible"),
    ],
)
def test_what_is_no_image_is_not_granted(registry, kind, body, error_id):
    registry.manifest = lambda _: Answer(200, body, {"Content-Type": kind})
    found = asked(registry)
    assert found.error is not None
    assert (found.verdict, found.error.id) == (
        "unusable" if error_id == "image-incompatible" else "no-answer",
        error_id,
    )


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("30", "wait 30 s"),
        ("Wed, 21 Oct 2026 07:28:00 GMT", "until Wed, 21 Oct 2026 07:28:00 GMT"),
        ("soon\x1b[31m", "does not say for how long"),
        (None, "does not say for how long"),
    ],
)
@pytest.mark.parametrize("place", ["ping", "token", "manifest"])
def test_a_limit_is_told_with_its_end_and_asked_no_further(registry, place, header, said):
    answer = Answer(429, errors("TOOMANYREQUESTS", "slow down"), {"Retry-After": header} if header else {})
    setattr(registry, place, lambda _: answer)
    found = asked(registry)
    assert found.error is not None
    assert (found.verdict, found.error.id, found.error.exit_code) == ("rate-limited", "image-rate-limited", 5)
    assert said in found.error.cause
    assert len(registry.seen) == ["ping", "token", "manifest"].index(place) + 1


def test_a_token_that_has_expired_meanwhile_is_replaced_once(registry):
    refused = Answer(401, headers={"WWW-Authenticate": INVALID.format(registry.address)})
    answers = [refused]
    registry.manifest = lambda r: answers.pop() if answers else registry.good_manifest(r)
    assert asked(registry).verdict == "granted"
    assert [r.path for r in registry.seen].count("/v2/") == 2


def _jwt(**claims: float) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.c2ln"


@pytest.mark.parametrize(
    ("token", "verdict", "word"),
    [
        (_jwt(nbf=1792567680 + 3600), "clock-wrong", "is valid from 2026-10-21 08:28:00 UTC on"),
        (_jwt(exp=1792567680 - 60), "clock-wrong", "has expired at 2026-10-21 07:27:00 UTC"),
        (_jwt(nbf=1792567680, exp=1792567680 + 300), "no-answer", "invalid"),
        (_jwt(nbf=1e300), "no-answer", "invalid"),
        ("opaque", "no-answer", "invalid"),
        ("a.!!!.b", "no-answer", "invalid"),
    ],
)
def test_two_clocks_that_differ_are_told_with_both_times(registry, token, verdict, word):
    now = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
    registry.token = lambda _: Answer(200, json.dumps({"token": token}).encode())
    headers = {"WWW-Authenticate": INVALID.format(registry.address), "Date": format_datetime(now, usegmt=True)}
    registry.manifest = lambda _: Answer(401, headers=headers)
    found = asked(registry)
    assert found.error is not None
    assert (found.verdict, found.error.id == "clock-wrong") == (verdict, verdict == "clock-wrong")
    assert word in found.error.cause
    shown = str(found.error.to_json())
    assert "2026-10-21 07:28:00 UTC" in shown
    assert token not in shown
    assert len([r for r in registry.seen if "/manifests/" in r.path]) == 2, "asked once again, and not for ever"


def test_a_token_without_rights_means_that_the_key_is_good(registry):
    challenge = f'Bearer realm="http://{registry.address}/token",error="insufficient_scope"'
    registry.manifest = lambda _: Answer(401, headers={"WWW-Authenticate": challenge})
    assert asked(registry).verdict == "organisation-wrong"
    assert probe(parse(f"{registry.address}/a/b"), None, HERE).verdict == "key-missing"


def test_a_token_service_that_denies_says_nothing_good_of_the_key(registry):
    """GitHub's answers 403 to wrong keys as well; NVIDIA's answers those 401."""
    registry.token = lambda _: Answer(403, errors("DENIED", "denied"))
    assert asked(registry, "somebody/a:1").verdict == "key-refused"
    assert asked(registry, "nim/a/b:1").verdict == "terms-not-accepted"


def test_the_whole_of_it_is_bounded(registry):
    registry.manifest = lambda _: Answer(hang=True)
    found = asked(registry, seconds=0.3)
    assert found.error is not None
    assert (found.verdict, found.error.id) == ("no-answer", "image-pull-failed")
    assert "within 0.3 s" in found.error.cause


@pytest.fixture(scope="module")
def published() -> None:
    digest = lab.push_image("nim/entitled/two:1")
    lab.push_index("nim/entitled/two:index", {HERE: digest, "linux/arm64/v8": digest})
    lab.push_index("nim/entitled/two:foreign", {ELSEWHERE: digest})


@pytest.mark.lab
class TestRealRegistry:
    """What docker-registry and its token authentication answer; repositories behave by their names."""

    @pytest.mark.parametrize(
        ("image", "key", "verdict"),
        [
            ("nim/entitled/two:1", "good", "granted"),
            ("nim/entitled/two:1", "identity", "granted"),
            ("nim/entitled/two:index", "good", "granted"),
            ("open/tiny:1", None, "keyless"),
            ("nim/entitled/two:1", None, "key-missing"),
            ("nim/entitled/two:1", "wrong", "key-refused"),
            ("private/a/b:1", "good", "organisation-wrong"),
            ("hidden/tiny:1", "good", "organisation-wrong"),
            ("nim/terms/x:1", "good", "terms-not-accepted"),
            ("unpaid/tiny:1", "good", "payment-required"),
            ("nim/entitled/nothing:1", "good", "not-found"),
            ("nim/entitled/two:foreign", "good", "architecture-missing"),
            ("busy/tiny:1", "good", "rate-limited"),
            ("down/tiny:1", "good", "no-answer"),
            ("slow/tiny:1", "good", "no-answer"),
            ("odd/tiny:1", "good", "unusable"),
            ("renewed/tiny:1", "good", "granted"),
            ("late/tiny:1", "good", "clock-wrong"),
            ("early/tiny:1", "good", "clock-wrong"),
        ],
    )
    def test_each_situation_has_its_verdict_and_no_blob_is_asked_for(self, published, image, key, verdict):
        registry = lab.registry_info()
        repository = image.partition(":")[0]
        before = lab.served(repository)
        found = probe(parse(f"{registry.address}/{image}"), _login(registry, key), HERE, seconds=1)
        assert (found.verdict, found.error is None) == (verdict, verdict in ("granted", "keyless"))
        assert (lab.served(repository) - before).blobs == 0


def _login(registry: lab.Registry, key: str | None) -> Login | None:
    if key is None:
        return None
    if key == "identity":
        return Login(TOKEN_USER, Secret(hashlib.sha256(registry.key.encode()).hexdigest()))
    return Login(USER, Secret(registry.key if key == "good" else "nvapi-wrong-0123456789"))
