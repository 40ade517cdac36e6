"""Keys, key files, logins, and what the registry says to them."""

import pytest

from nimctl.core.errors import CATALOGUE
from nimctl.core.facts import HostReach, ImageAccess, ImageFacts, NetworkFacts
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import DEMO, HEALTHY, KIMI, NIM, host, judge, verdicts

IMAGE = str(NIM.image)
DIGEST = "sha256:" + "a" * 64


def keys(**changes):
    return host(credentials=changes)


@pytest.mark.parametrize(
    ("present", "needs", "expected"),
    [
        ({"NGC_API_KEY": True}, Needs(NIM), ("pass", "key")),
        ({"NGC_API_KEY": False}, Needs(NIM), ("fail", "key-missing")),
        ({"HF_TOKEN": False}, Needs(KIMI), ("warn", "key-absent")),
        ({}, Needs(KIMI), ("unknown", "key")),
        ({}, Needs(DEMO), ("skip", "key")),
        ({}, Needs(), ("skip", "key")),
    ],
)
def test_key(present, needs, expected):
    assert verdicts(judge("key", keys(keys=present), needs)) == [expected]


def test_a_login_of_docker_is_no_key_for_the_container():
    (finding,) = judge("key", keys(keys={"NGC_API_KEY": False}), Needs(NIM))
    assert "the image can be pulled" in finding.title
    (finding,) = judge("key", keys(keys={"NGC_API_KEY": False}, logins=()), Needs(NIM))
    assert "the image and its weights" in finding.title


@pytest.mark.parametrize(
    ("kinds", "needs", "expected"),
    [
        ({"NGC_API_KEY": "personal"}, Needs(NIM), ("pass", "key-kind", "info")),
        ({"HF_TOKEN": "hugging-face"}, Needs(KIMI), ("pass", "key-kind", "info")),
        ({"NGC_API_KEY": "legacy"}, Needs(NIM), ("warn", "key-legacy", "info")),
        ({"NGC_API_KEY": "hugging-face"}, Needs(NIM), ("warn", "key-mistaken", "warning")),
        ({"HF_TOKEN": "personal"}, Needs(KIMI), ("warn", "key-mistaken", "warning")),
        ({"HF_TOKEN": "legacy"}, Needs(KIMI), ("warn", "key-mistaken", "warning")),
        ({"NGC_API_KEY": "other"}, Needs(NIM), ("unknown", "key-kind", "info")),
        ({}, Needs(NIM), ("unknown", "key-kind", "info")),
        ({"NGC_API_KEY": "legacy"}, Needs(DEMO), ("skip", "key-kind", "info")),
    ],
)
def test_key_kind(kinds, needs, expected):
    (finding,) = judge("key-kind", keys(kinds=kinds), needs)
    assert (finding.verdict, finding.id, finding.severity) == expected


def test_both_documents_about_legacy_keys_are_named():
    (finding,) = judge("key-kind", keys(kinds={"NGC_API_KEY": "legacy"}), Needs(NIM))
    assert [line.partition(":")[0] for line in finding.evidence] == ["not supported", "supported"]
    assert verdicts(judge("key-kind", keys(keys={}), Needs(NIM))) == [("skip", "key-kind")]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ("skip", "key-file")),
        ({"NGC_API_KEY_FILE": "0600"}, ("pass", "key-file")),
        ({"NGC_API_KEY_FILE": "0440"}, ("pass", "key-file")),
        ({"NGC_API_KEY_FILE": "0644"}, ("warn", "key-file-open")),
        ({"NGC_API_KEY_FILE": "nonsense"}, ("pass", "key-file")),
    ],
)
def test_key_file(files, expected):
    assert verdicts(judge("key-file", keys(key_files=files))) == [expected]


# the image


def access(id_=None, **changes):
    refused = {"message": f"nvcr.io refused {IMAGE}", "cause": "a cause", "fix": "a fix", "evidence": ("403",)}
    return ImageAccess(IMAGE, "docker-login", id=id_, **({**refused, **changes} if id_ else changes))


def test_an_image_that_may_be_pulled():
    (finding,) = judge("image-access", keys(image=access(digest=DIGEST)), Needs(NIM))
    assert finding.verdict == "pass" and finding.evidence == (DIGEST,)
    assert "docker-login" in finding.title


@pytest.mark.parametrize(
    "id_", ["terms-not-accepted", "payment-required", "key-refused", "image-not-found", "key-missing"]
)
def test_a_refusal_is_the_error_that_a_pull_would_end_with(id_):
    (finding,) = judge("image-access", keys(image=access(id_)), Needs(NIM))
    assert (finding.verdict, finding.id) == ("fail", id_)
    assert (finding.cause, finding.fix, finding.evidence) == ("a cause", "a fix", ("403",))


def test_what_the_registry_said_is_judged_only_where_it_matters():
    refused = keys(image=access("key-refused"))
    assert verdicts(judge("image-access", refused, Needs(NIM, runtime="process"))) == [("skip", "image-access")]
    here = host(refused, image=ImageFacts(IMAGE, present=True))
    assert verdicts(judge("image-access", here, Needs(NIM))) == [("skip", "image-access")]
    assert verdicts(judge("image-access", HEALTHY, Needs(KIMI))) == [("skip", "image-access")]


def test_a_registry_that_was_not_heard_cannot_be_told():
    facts = host(problems=("image access: TimeoutError: no answer about it within 4.3 s",))
    (finding,) = judge("image-access", facts, Needs(NIM))
    assert (finding.verdict, finding.id) == ("unknown", "image-access") and "4.3 s" in finding.cause


def test_a_cause_fails_once():
    no_key = keys(keys={"NGC_API_KEY": False}, image=access("key-missing"))
    assert verdicts(judge("image-access", no_key, Needs(NIM))) == [("skip", "image-access")]
    silent = HostReach("https://nvcr.io/v2/", "image", "dns", "no such name")
    facts = host(network=NetworkFacts(reached=(silent,)), credentials={"image": access("image-pull-failed")})
    assert verdicts(judge("image-access", facts, Needs(NIM))) == [("skip", "image-access")]
    other = host(network=NetworkFacts(reached=(HostReach("https://nvcr.io/v2/", "image", "ok"),)))
    broken = host(other, credentials={"image": access("image-pull-failed")})
    assert verdicts(judge("image-access", broken, Needs(NIM))) == [("fail", "image-pull-failed")]


def test_words_of_an_older_or_newer_version_are_understood():
    (finding,) = judge("image-access", keys(image=access("no-such-id", message=None, cause=None, fix=None)), Needs(NIM))
    assert finding.id == "image-pull-failed" and finding.title and finding.cause and finding.fix


# Docker's logins


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"store": "pass"}, ("pass", "docker-login", "info")),
        ({}, ("pass", "docker-login", "info")),
        ({"logins": ()}, ("skip", "docker-login", "info")),
        ({"plaintext": ("nvcr.io",), "config_mode": "0600"}, ("warn", "login-plaintext", "info")),
        ({"plaintext": ("nvcr.io",), "config_mode": "0644"}, ("warn", "login-readable", "warning")),
        ({"plaintext": ("nvcr.io",)}, ("warn", "login-plaintext", "info")),
        ({"store": "pass", "config_mode": "0644"}, ("pass", "docker-login", "info")),
        ({"store": "x", "helper_problem": "no program"}, ("warn", "credential-helper-missing", "warning")),
        ({"config_problem": "it is not JSON"}, ("warn", "docker-config-broken", "warning")),
    ],
)
def test_docker_login(changes, expected):
    (finding,) = judge("docker-login", keys(**changes))
    assert (finding.verdict, finding.id, finding.severity) == expected
    assert finding.verdict != "warn" or finding.fix


def test_logins_of_docker_do_not_matter_to_processes():
    facts = keys(plaintext=("nvcr.io",), config_mode="0644")
    assert verdicts(judge("docker-login", facts, Needs(KIMI, runtime="process"))) == [("skip", "docker-login")]


def test_payment_is_a_matter_of_credentials():
    assert CATALOGUE["payment-required"].exit_code == CATALOGUE["terms-not-accepted"].exit_code == 4
