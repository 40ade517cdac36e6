"""Image references are read as docker reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.errors import NimctlError
from nimctl.registry.reference import Reference, is_loopback, parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "nvcr.io/nim/moonshotai/kimi-k2.5:1.7.0-variant",
            Reference("nvcr.io", "nim/moonshotai/kimi-k2.5", "1.7.0-variant"),
        ),
        (f"localhost:5000/a/b@{DIGEST}", Reference("localhost:5000", "a/b", None, DIGEST)),
        (f"host:1/a:t@{DIGEST}", Reference("host:1", "a", "t", DIGEST)),
        ("ubuntu", Reference("docker.io", "library/ubuntu", "latest")),
        ("vllm/vllm-openai:v0.32.0", Reference("docker.io", "vllm/vllm-openai", "v0.32.0")),
        ("index.docker.io/library/ubuntu:24.04", Reference("docker.io", "library/ubuntu", "24.04")),
        ("localhost/a", Reference("localhost", "a", "latest")),
        ("[::1]:5000/a__b/c-d.e", Reference("[::1]:5000", "a__b/c-d.e", "latest")),
        ("nimctl-cpu:0.1.0", Reference("docker.io", "library/nimctl-cpu", "0.1.0")),
    ],
)
def test_parts(text, expected):
    found = parse(text)
    assert found == expected
    assert parse(str(found)) == found
    assert found.target == (expected.digest or expected.tag)


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", "A/b", "nvcr.io/", "nvcr.io/Nim/x", "a b", "../a", "a/../b", "a//b", "a@sha256:abc", "a:b:c", "-a"],
)
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(NimctlError) as caught:
        parse(text)
    assert caught.value.id == "usage"


@pytest.mark.parametrize(
    "text", ["https://nvcr.io/a", "nvcr.io/a:t\n", "nvcr.io/a?x=1", "nvcr.io/a#b", "u:p@nvcr.io/a", "a:" + "t" * 129]
)
def test_addresses_and_overlong_tags_are_refused(text):
    test_what_is_no_reference_is_refused(text)


@given(st.text(st.sampled_from("abA.:/@-_%?#[]\\ \n0"), max_size=20))
def test_a_reference_never_changes_the_address_it_becomes_a_part_of(text):
    try:
        found = parse(text)
    except NimctlError:
        return
    address = f"{found.registry}/v2/{found.repository}/manifests/{found.target}"
    assert not set(address) & set("%?#@\\ \n")
    assert "//" not in address
    assert "/../" not in address
    assert parse(str(found)) == found


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:5000"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["nvcr.io", "10.0.0.1:5000", "localhost.example.com", "127.0.0.1.example.com", "[::2]"]
)
def test_not_loopback(host):
    assert not is_loopback(host)
