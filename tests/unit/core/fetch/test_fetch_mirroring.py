"""A checkpoint written into a bucket and read from it again through NIM_REPOSITORY_OVERRIDE, against moto's S3."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import pytest
from moto.server import ThreadedMotoServer

from nimctl.core import fetch
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import mirroring
from nimctl.core.fetch.access import Access
from nimctl.core.fetch.manifest import File, Manifest, revision_of
from nimctl.core.fetch.protocol import Progress
from nimctl.core.fetch.retry import Patience, Stop
from nimctl.core.fetch.sources.objectstore import upload
from nimctl.core.secret import Secret
from tests.lib.checkpoints import read_tree, safetensors
from tests.lib.little_bucket import LittleBucket

NAME = "hf://org/name"
KEY = "org%2Fname%3Ffile%3D"
FILES = {"config.json": b"{}", "model.safetensors": safetensors(300_000), "sub/a b%41+ü.json": b"[1]"}
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "canarySecretCanary"}
AT_ONCE = Patience(attempts=2, first=0.0, longest=0.0)


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Bench:
    """A bucket, a folder with the files of a checkpoint, and its manifest."""

    def __init__(self, url: str, bucket: str, root: Path) -> None:
        self.url, self.bucket, self.root, self.folder = url, bucket, root, root / "snapshot"
        self.s3: Any = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1",
            config=botocore.config.Config(retries={"max_attempts": 0}),
        )  # fmt: skip
        self.s3.create_bucket(Bucket=bucket)
        self.seen: list[Progress] = []
        self.stop = Stop()
        self.manifest = self.write(FILES)

    def write(self, content: dict[str, bytes]) -> Manifest:
        for path, data in content.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(data)
        files = tuple(File(n, len(b), f"sha256:{hashlib.sha256(b).hexdigest()}") for n, b in sorted(content.items()))
        return Manifest(NAME, revision_of(files), files)

    def access(self, **variables: str) -> Access:
        known = {"AWS_ENDPOINT_URL": self.url, **KEYS, **variables}
        return Access(
            object_store={name: Secret(value) for name, value in known.items() if value},
            override=variables.get("override"),
        )

    def mirror(self, manifest: Manifest | None = None, **variables: str) -> mirroring.Mirrored:
        return mirroring.mirror(
            NAME, manifest or self.manifest, self.folder, f"s3://{self.bucket}", access=self.access(**variables),
            on_progress=self.seen.append, stop=self.stop, patience=AT_ONCE,
        )  # fmt: skip

    def names(self) -> list[str]:
        return [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def fetched(self, cache: str = "cache") -> Path:
        access = self.access(override=f"s3://{self.bucket}")
        return fetch.fetch(NAME, self.root / cache, access=access, patience=AT_ONCE)


@pytest.fixture
def bench(s3_url: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "SSL_CERT_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    bucket = f"bucket-{hashlib.sha256(request.node.name.encode()).hexdigest()[:16]}"
    return Bench(s3_url, bucket, tmp_path)


def error_of(bench: Bench, manifest: Manifest | None = None, **variables: str) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        bench.mirror(manifest, **variables)
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in f"{caught.value.to_json()}"
    return caught.value


def test_what_was_mirrored_is_what_an_override_reads(bench: Bench) -> None:
    done = bench.mirror()
    assert (done.address, done.files, done.sent, done.kept) == (f"s3://{bench.bucket}/org%2Fname", 3, 3, 0)
    assert done.bytes == sum(map(len, FILES.values()))
    assert f"{KEY}config.json" in bench.names()
    assert f"{KEY}nimctl.manifest.json" in bench.names()
    assert read_tree(bench.fetched()) == FILES
    assert (bench.seen[-1].phase, bench.seen[-1].bytes) == ("done", done.bytes)


def test_the_second_time_nothing_is_sent(bench: Bench) -> None:
    bench.mirror()
    before = {e["Key"]: e["LastModified"] for e in bench.s3.list_objects_v2(Bucket=bench.bucket)["Contents"]}
    done = bench.mirror()
    assert (done.sent, done.kept, done.bytes) == (0, 3, 0)
    assert {e["Key"]: e["LastModified"] for e in bench.s3.list_objects_v2(Bucket=bench.bucket)["Contents"]} == before


def test_what_is_missing_or_different_is_sent_again(bench: Bench) -> None:
    bench.mirror()
    bench.s3.delete_object(Bucket=bench.bucket, Key=f"{KEY}config.json")
    # of the same size and somebody else's: no digest of ours vouches for it
    other = bytes(len(FILES["model.safetensors"]))
    bench.s3.put_object(Bucket=bench.bucket, Key=f"{KEY}model.safetensors", Body=other)
    assert (bench.mirror().sent, read_tree(bench.fetched())) == (2, FILES)


def test_a_newer_revision_takes_the_place_of_the_older(bench: Bench) -> None:
    bench.mirror()
    newer = {**FILES, "config.json": b"[]"}
    assert bench.mirror(bench.write(newer)).sent == 1
    assert read_tree(bench.fetched()) == newer


def test_a_part_of_a_mirror_is_never_taken_for_the_whole(bench: Bench) -> None:
    (bench.folder / "model.safetensors").write_bytes(b"short")
    error = error_of(bench)
    assert (error.id, "model.safetensors" in error.message) == ("weights-corrupt", True)
    assert f"{KEY}model.safetensors" not in bench.names()
    with pytest.raises(NimctlError) as caught:
        bench.fetched()
    assert caught.value.id == "weights-incomplete"
    bench.write(FILES)
    assert (bench.mirror().kept, read_tree(bench.fetched())) == (1, FILES)


def test_large_files_go_in_parts_and_appear_whole_or_not_at_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_SMALLEST_PART", 5 * 2**20)  # the smallest that S3 takes
    weights = safetensors(12 * 2**20)
    manifest = bench.write({**FILES, "model.safetensors": weights})
    damaged = bytearray(weights)
    damaged[-1] ^= 1
    (bench.folder / "model.safetensors").write_bytes(damaged)
    assert error_of(bench, manifest).id == "weights-corrupt"
    assert f"{KEY}model.safetensors" not in bench.names()
    assert not bench.s3.list_multipart_uploads(Bucket=bench.bucket).get("Uploads")
    (bench.folder / "model.safetensors").write_bytes(weights)
    assert bench.mirror(manifest).sent == 2
    assert bench.s3.head_object(Bucket=bench.bucket, Key=f"{KEY}model.safetensors")["ETag"].endswith('-3"')
    assert (bench.fetched() / "model.safetensors").read_bytes() == weights
    assert any(progress.phase == "uploading" for progress in bench.seen)


def test_the_parts_of_the_largest_files_are_few_enough_and_memory_is_bounded() -> None:
    assert upload.part_size(1) == upload.part_size(10 * 2**30) == 16 * 2**20
    assert 5 * 2**40 / upload.part_size(5 * 2**40) <= 10_000


def test_files_without_a_digest_get_one(bench: Bench) -> None:
    files = tuple(File(file.path, file.size, version="1") for file in bench.manifest.files)
    bench.mirror(Manifest(NAME, "a" * 40, files))
    body = bench.s3.get_object(Bucket=bench.bucket, Key=f"{KEY}nimctl.manifest.json")["Body"].read()
    assert [entry["digest"] for entry in json.loads(body)["files"]] == [f.digest for f in bench.manifest.files]


def test_a_stop_ends_it_and_the_rest_is_sent_later(bench: Bench) -> None:
    bench.stop.set()
    assert error_of(bench).id == "interrupted"
    assert bench.names() in ([], [f"{KEY}nimctl.manifest.json"])
    bench.stop = Stop()
    assert bench.mirror().sent == 3


def test_refusals_are_told_in_the_words_of_somebody_who_writes(bench: Bench) -> None:
    error = error_of(bench, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert (error.id, f"the objects of s3://{bench.bucket} could not be listed" in error.message) == (
        "weights-source-unreachable", True
    )  # fmt: skip
    waits = [progress.detail or "" for progress in bench.seen if progress.phase == "waiting"]
    assert any("attempt 2" in words for words in waits)
    bench.s3.delete_bucket(Bucket=bench.bucket)
    error = error_of(bench)
    assert (error.id, error.message) == ("weights-not-found", f"there is no bucket s3://{bench.bucket}")


@pytest.mark.parametrize("destination", ["/folder", "https://host/x", "s3:/bucket", "bucket", ""])
def test_destinations_that_are_none(destination: str) -> None:
    with pytest.raises(NimctlError) as caught:
        mirroring.place_of(NAME, destination)
    assert caught.value.id == "config-invalid"


@pytest.mark.parametrize("uri", ["builtin://demo", "/a/folder", "file:///a/folder"])
def test_what_no_override_takes_the_place_of(uri: str) -> None:
    with pytest.raises(NimctlError) as caught:
        mirroring.place_of(uri, "s3://bucket")
    assert caught.value.id == "weights-source-unsupported"


def test_google_takes_and_gives_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_SMALLEST_PART", 2**17)
    with LittleBucket() as bucket:
        keys = {"GOOGLE_BASE_URL": Secret(bucket.url), "GOOGLE_BEARER_TOKEN": Secret("token")}
        access = Access(object_store=keys, override="gs://bucket/folder")

        def mirror() -> mirroring.Mirrored:
            return mirroring.mirror(
                NAME, bench.manifest, bench.folder, "gs://bucket/folder", access=access,
                on_progress=bench.seen.append, stop=bench.stop, patience=AT_ONCE,
            )  # fmt: skip

        assert (mirror().sent, bucket.uploads) == (3, {})
        assert f"folder/{KEY}config.json" in bucket.objects
        assert bucket.objects[f"folder/{KEY}model.safetensors"][0] == FILES["model.safetensors"]
        puts = bucket.puts
        assert (mirror().kept, bucket.puts) == (3, puts)
        assert read_tree(fetch.fetch(NAME, bench.root / "gs", access=access, patience=AT_ONCE)) == FILES


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_key_that_may_not_write_is_told_so(bench: Bench, method: str) -> None:
    with LittleBucket() as bucket:
        bucket.refuses = method
        keys = {"GOOGLE_BASE_URL": Secret(bucket.url), "GOOGLE_BEARER_TOKEN": Secret("canary")}
        with pytest.raises(NimctlError) as caught:
            mirroring.mirror(
                NAME, bench.manifest, bench.folder, "gs://bucket", access=Access(object_store=keys),
                on_progress=bench.seen.append, stop=bench.stop, patience=AT_ONCE,
            )  # fmt: skip
    assert (caught.value.id, "list, read and write" in caught.value.fix) == ("key-refused", True)
    assert "canary" not in str(caught.value.to_json())
