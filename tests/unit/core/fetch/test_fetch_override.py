"""NIM_REPOSITORY_OVERRIDE: the flat keys that NVIDIA documents, our folders elsewhere, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.sources import override


@pytest.mark.parametrize(
    ("uri", "mirror", "expected"),
    [
        # NVIDIA's own example, file by file; ours keeps the choice of files as a query
        ("ngc://nim/meta/llama3:hf", "s3://nim_bucket/", "s3://nim_bucket/nim%2Fmeta%2Fllama3%3Ahf"),
        ("ngc://nim/meta/llama3:hf?file=a", "s3://b", "s3://b/nim%2Fmeta%2Fllama3%3Ahf?file=a"),
        ("hf://org/name", "s3://b/folder/", "s3://b/folder/org%2Fname"),
        ("hf://org/name:v1", "gs://b", "gs://b/org%2Fname%3Av1"),
        ("s3://bucket/folder", "s3://b", "s3://b/bucket%2Ffolder"),
        ("hf://org/name:v1", "https://host:8443/base/", "https://host:8443/base/org/name/v1"),
        ("hf://org/name@refs/pr/1", "https://host", "https://host/org/name/refs/pr/1"),
        ("hf://org/name?file=a/b", "https://host", "https://host/org/name?file=a/b"),
        ("ngc://org/team/name:1.0", "jfrog://host/artifactory/nim", "https://host/artifactory/nim/org/team/name/1.0"),
        ("hf://org/name", "https://user:pass@host", "https://user:pass@host/org/name"),
        ("https://me:secret@host:80/a b", "https://other", "https://other/host%3A80/a%20b"),
        ("hf://org/name:v1", "file:///mnt/models", "file:///mnt/models/org/name/v1"),
        ("hf://org/name", "/mnt/my models/", "/mnt/my models/org/name"),
        ("hf://org/name", "/", "/org/name"),
        ("hf://org/name", None, "hf://org/name"),
        ("hf://org/name", "  ", "hf://org/name"),
        ("/a/folder", "s3://b", "/a/folder"),
        ("file:///a/folder", "s3://b", "file:///a/folder"),
        ("builtin://demo", "s3://b", "builtin://demo"),
    ],
)
def test_mapping(uri: str, mirror: str | None, expected: str) -> None:
    assert override.apply(uri, mirror) == expected


@pytest.mark.parametrize(
    "mirror",
    ["bucket", "ftp://host", "s3://", "https://", "https://host:port", "https://h/?a=b", "https://h/#a", "s3://a b",
     "file://host/folder", "file://relative", "jfrog://", "/a\0b", "http://[::1"],
)  # fmt: skip
def test_malformed(mirror: str) -> None:
    with pytest.raises(NimctlError) as caught:
        override.apply("hf://org/name", mirror)
    assert caught.value.id == "config-invalid"


def test_the_password_of_a_malformed_mirror_is_not_shown() -> None:
    with pytest.raises(NimctlError) as caught:
        override.apply("hf://org/name", "https://user:canary@host:port")
    assert "canary" not in repr(caught.value.__dict__) + str(caught.value)


def test_a_source_cannot_climb_out_of_the_mirror() -> None:
    with pytest.raises(NimctlError) as caught:
        override.apply("hf://org/..", "/mnt")
    assert caught.value.id == "weights-source-unsupported"


@given(st.text(min_size=1, max_size=30), st.sampled_from(["s3://b", "https://h", "/m", "file:///m"]))
def test_whatever_is_asked_for_stays_below_the_mirror(name: str, mirror: str) -> None:
    try:
        result = override.apply(f"hf://{name}", mirror)
    except NimctlError as error:
        assert error.id == "weights-source-unsupported"
        return
    assert result.startswith(mirror)
    assert ".." not in result.removeprefix(mirror).partition("?")[0].split("/")
