"""What a build says of itself: its inputs with digests, no host, no time outside of its metadata."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nimctl import images
from nimctl.core.errors import NimctlError
from nimctl.images.builder import Builder, require
from nimctl.images.provenance import Inputs, provenance, statement
from tests.unit.images.build_hosts import configure_pip, put_docker

INPUTS = Inputs(
    target="cpu", platforms=("linux/amd64",), base="docker.io/library/debian:12-slim", base_digest="sha256:" + "a" * 64,
    snapshot=None, source="https://git.example/nimctl", revision="b" * 40 + "-dirty", date=1763000000,
    files={"Dockerfile": "c" * 64}, versions={"nimctl": "0.1.0"},
)  # fmt: skip
PARTS = [
    {"purl": "pkg:pypi/torch@2", "hashes": [{"alg": "SHA-256", "content": "d" * 64}]},
    {"purl": "pkg:deb/debian/adduser@3"},
    {"name": "nimctl"},
]


def test_each_input_is_named_with_its_digest() -> None:
    told = provenance(INPUTS, PARTS, began="2026-11-22T20:00:00Z", ended="2026-11-22T20:03:00Z")
    base, own, torch, adduser = told["buildDefinition"]["resolvedDependencies"]
    assert base["digest"] == {"sha256": "a" * 64} and own["digest"] == {"gitCommit": "b" * 40}
    assert own["annotations"] == {"uncommitted": True}
    assert torch == {"uri": "pkg:pypi/torch@2", "digest": {"sha256": "d" * 64}}
    assert adduser == {"uri": "pkg:deb/debian/adduser@3"}
    assert "snapshot" not in told["buildDefinition"]["externalParameters"]


def test_only_the_metadata_know_when_it_was() -> None:
    one = provenance(INPUTS, PARTS, began="2026-11-22T20:00:00Z", ended="2026-11-22T20:03:00Z")
    two = provenance(replace(INPUTS), PARTS, began="2027-01-01T00:00:00Z", ended="2027-01-01T00:03:00Z")
    assert one["runDetails"].pop("metadata") != two["runDetails"].pop("metadata")
    assert one == two


def test_a_statement_is_about_one_digest() -> None:
    said = statement("x:1", "sha256:" + "e" * 64, "https://slsa.dev/provenance/v1", {"a": 1})
    assert said["subject"] == [{"name": "x:1", "digest": {"sha256": "e" * 64}}]


def test_a_described_build_reads_the_base_and_the_parts_and_keeps_secrets_out(
    machine: dict[str, str], tmp_path: Path
) -> None:
    configure_pip(machine, tmp_path, "[global]\nindex-url = https://user:canary@mirror.example/simple\n")
    sbom = json.dumps({"components": PARTS})
    put_docker(
        machine,
        f"""case "$*" in
        *target=sbom*) for word; do case "$word" in *dest=*) d=${{word#*dest=}};; esac; done
            mkdir -p "$d" && echo '{sbom}' > "$d/sbom.cdx.json";;
        *inspect*|*version*) echo 26.1;;
        *) echo '#5 [system 1/3] FROM docker.io/library/debian:12-slim@sha256:{"a" * 64}'; echo '#5 DONE 0.0s';;
        esac""",
    )
    env = {**machine, "HTTPS_PROXY": "http://me:canary@proxy:3128", "SOURCE_DATE_EPOCH": "1763000000"}
    built = images.build("cpu", env=env, described=True)
    told = built.provenances[""]
    definition = told["buildDefinition"]
    assert definition["resolvedDependencies"][0]["digest"] == {"sha256": "a" * 64}
    assert definition["externalParameters"]["sourceDateEpoch"] == 1763000000
    assert "Dockerfile" in definition["internalParameters"]["recipe"]
    assert not any(name.startswith("cuda/") for name in definition["internalParameters"]["recipe"])
    assert "canary" not in json.dumps([told, dict(built.sboms)])
    assert str(tmp_path) not in json.dumps(told)


CLASSIC, STORE, OTHER = Builder("docker", False), Builder("docker", True), Builder("docker-container", None)


@pytest.mark.parametrize(
    ("builder", "platforms", "compression", "push", "id", "word"),
    [
        (CLASSIC, (), "zstd", True, "image-build-failed", "containerd"),
        (CLASSIC, ("linux/amd64", "linux/arm64"), None, True, "image-build-failed", "containerd"),
        (STORE, (), "zstd", False, "usage", "--push"),
        (OTHER, ("linux/amd64", "linux/arm64"), None, False, "usage", "--push"),
    ],
)
def test_what_the_builder_cannot_do_is_said_before_it_works(
    builder: Builder,
    platforms: tuple[str, ...],
    compression: str | None,
    push: bool,
    id: str,  # noqa: A002
    word: str,
) -> None:
    with pytest.raises(NimctlError) as caught:
        require(builder, platforms=platforms, compression=compression, push=push)
    assert caught.value.id == id and word in caught.value.fix


def test_what_it_can_do_is_left_to_it() -> None:
    require(STORE, platforms=("linux/amd64", "linux/arm64"), compression="zstd", push=True)
    require(CLASSIC, platforms=("linux/arm64",), compression=None, push=True)
    require(Builder(None, None), platforms=("linux/amd64", "linux/arm64"), compression="zstd", push=True)


def test_odd_options_are_usage_errors(machine: dict[str, str]) -> None:
    for options in ({"compression": "lz4"}, {"snapshot": "yesterday"}):
        with pytest.raises(NimctlError) as caught:
            images.build("cpu", env=machine, **options)  # type: ignore[arg-type]
        assert caught.value.id == "usage"
