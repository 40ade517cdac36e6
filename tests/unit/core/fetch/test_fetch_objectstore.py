"""`s3://` against a real S3 server (moto's), `gs://` and misbehaviour against small ones; no store is ever mocked."""

import hashlib
import inspect
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import botocore.config
import obstore.exceptions
import pytest
from moto.server import ThreadedMotoServer

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import http, store
from nimctl.core.fetch.access import Access
from nimctl.core.fetch.protocol import Interrupted, RangeIgnored, Remote
from nimctl.core.fetch.retry import Patience
from nimctl.core.fetch.sources import checksums, objectstore, objectstore_errors
from nimctl.core.fetch.sources.objectstore_errors import Asked
from nimctl.core.fetch.sources.opening import Opening
from nimctl.core.secret import Secret
from tests.lib.checkpoints import safetensors
from tests.lib.reading import error_of, file_of, read_stream

AT_ONCE = Patience(attempts=2, first=0.0, longest=0.0)
WEIGHTS = safetensors(300_000)[:-300_000] + bytes(n * 7 % 251 for n in range(300_000))
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "sub/y z%41+ü.json": b"[]", "README.md": b"# hi"}
NAMES = ["config.json", "model.safetensors", "sub/y z%41+ü.json"]
KEY = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "canarySecretCanary"}


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "SSL_CERT_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


class Bench:
    """An S3 server with one bucket of its own, a cache, and the sources made of them."""

    def __init__(self, url: str, bucket: str, root: Path) -> None:
        self.url, self.bucket, self.paths = url, bucket, CachePaths(root)
        self.s3: Any = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1",
            config=botocore.config.Config(retries={"max_attempts": 0}),
        )  # fmt: skip
        self.s3.create_bucket(Bucket=bucket)

    def put(self, files: dict[str, bytes], folder: str = "m/") -> None:
        for path, content in files.items():
            self.s3.put_object(Bucket=self.bucket, Key=folder + path, Body=content)

    def source(self, uri: str | None = None, *, offline: bool = False, refresh: bool = False, **variables: str) -> Any:
        access = _access({"AWS_ENDPOINT_URL": self.url, **KEY, **variables}, offline=offline)
        uri = uri or f"s3://{self.bucket}/m"
        return objectstore.parse(uri, Opening(self.paths, access, http.Client(), refresh, AT_ONCE))

    def fetch(self, source: Any) -> Path:
        return store.ensure(source, source.resolve(), self.paths, lambda _: None, patience=AT_ONCE)


def _access(variables: dict[str, str], *, offline: bool = False) -> Access:
    return Access(object_store={name: Secret(value) for name, value in variables.items() if value}, offline=offline)


def _opening(cache: Path, access: Access) -> Opening:
    return Opening(CachePaths(cache), access, http.Client(), patience=AT_ONCE)


@pytest.fixture
def bench(s3_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    bucket = f"bucket-{sha256_of(request.node.name.encode())[:16]}"
    return Bench(s3_url, bucket, tmp_path / "cache")


def _error(action: Callable[[], object]) -> NimctlError:
    return error_of(action, KEY["AWS_SECRET_ACCESS_KEY"], KEY["AWS_ACCESS_KEY_ID"])


def test_a_folder_arrives_whole_and_its_second_start_asks_nobody(bench: Bench) -> None:
    bench.put({**FILES, "": b"", "sub/": b"", "pytorch_model.bin": b"x"})
    bench.put({"config.json": b"other"}, "mother/")
    source = bench.source()
    assert isinstance(source, Remote)
    manifest = source.resolve()
    assert [file.path for file in manifest.files] == NAMES
    assert manifest.source == f"s3://{bench.bucket}/m"
    snapshot = bench.fetch(source)
    assert {path: (snapshot / path).read_bytes() for path in NAMES} == {path: FILES[path] for path in NAMES}
    again = bench.source(offline=True).resolve()
    assert again.revision == manifest.revision
    assert file_of(again, "model.safetensors").digest == f"sha256:{sha256_of(WEIGHTS)}"


def test_ranges_are_exactly_what_was_asked_for(bench: Bench) -> None:
    bench.put(FILES)
    source = bench.source()
    weights = file_of(source.resolve(), "model.safetensors")
    for start, stop in ((0, 1), (1, 70_001), (weights.size - 3, weights.size), (0, weights.size)):
        assert read_stream(source.open_range(weights, start, stop)) == WEIGHTS[start:stop]
    stream = source.open_range(weights, 0, weights.size)
    stream.abort()
    with pytest.raises(Interrupted):
        stream.readinto(memoryview(bytearray(10)))
    stream.close()


def test_an_unchanged_folder_keeps_its_revision_and_a_changed_one_gets_another(bench: Bench) -> None:
    bench.put(FILES)
    first = bench.source().resolve()
    bench.put({"README.md": b"# changed, and not needed"})
    assert bench.source().resolve().revision == first.revision
    bench.fetch(bench.source())
    bench.put({"config.json": b"[]"})  # of the same size
    assert bench.source().resolve().revision == first.revision
    second = bench.source(refresh=True).resolve()
    assert second.revision != first.revision
    assert (bench.fetch(bench.source(refresh=True)) / "config.json").read_bytes() == b"[]"


def test_a_file_that_changes_meanwhile_is_an_error_and_never_a_mix(bench: Bench) -> None:
    bench.put(FILES)
    source = bench.source()
    weights = file_of(source.resolve(), "model.safetensors")
    assert read_stream(source.open_range(weights, 0, 10)) == WEIGHTS[:10]
    bench.put({"model.safetensors": bytes(len(WEIGHTS))})
    error = _error(lambda: source.open_range(weights, 10, 20))
    assert error.id == "weights-source-failed"
    assert "changed" in error.message
    bench.s3.delete_object(Bucket=bench.bucket, Key="m/model.safetensors")
    assert _error(lambda: source.open_range(weights, 10, 20)).id == "weights-not-found"


def test_sums_beside_the_weights_give_digests(bench: Bench) -> None:
    lines = "".join(f"{sha256_of(FILES[name])}  ./{name}\n" for name in NAMES)
    bench.put({**FILES, "SHA256SUMS": lines.encode()})
    manifest = bench.source().resolve()
    assert {file.path: file.digest for file in manifest.files} == {n: f"sha256:{sha256_of(FILES[n])}" for n in NAMES}
    bench.put({"model.safetensors": bytes(len(WEIGHTS))})
    assert _error(lambda: bench.fetch(bench.source())).id == "weights-corrupt"


def test_a_manifest_decides_what_the_folder_holds(bench: Bench) -> None:
    files = [{"path": n, "size": len(FILES[n]), "digest": f"sha256:{sha256_of(FILES[n])}"} for n in NAMES[:2]]
    text = {"schema": "nimctl.manifest/1", "source": "any", "revision": "any", "files": files}
    bench.put({**FILES, checksums.MANIFEST: _json(text)})
    assert [file.path for file in bench.source().resolve().files] == NAMES[:2]
    bench.s3.delete_object(Bucket=bench.bucket, Key="m/model.safetensors")
    error = _error(lambda: bench.source().resolve())
    assert (error.id, error.cause) == ("weights-incomplete", "model.safetensors is missing")
    bench.put({checksums.MANIFEST: b"<html>"})
    assert _error(lambda: bench.source().resolve()).id == "weights-source-failed"
    bench.put({checksums.MANIFEST: _json({**text, "files": [{"path": "../x", "size": 1}]})})
    assert _error(lambda: bench.source().resolve()).id == "weights-unsafe-name"


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_flat_keys_of_a_bucket_filled_for_nim(bench: Bench) -> None:
    base = "org%2Fname%3Av1"
    names = {
        f"{base}%3Ffile%3D{path.replace('/', '%2F')}": content for path, content in FILES.items() if "%" not in path
    }
    bench.put(
        {**names, f"{base}%3Ffile%3Dsub%2Fb.json": b"[1]", f"{base}0": b"no", "org%2Fname%3Av2%3Ffile%3Da.json": b""},
        "",
    )
    source = bench.source(f"s3://{bench.bucket}/{base}")
    manifest = source.resolve()
    assert [file.path for file in manifest.files] == ["config.json", "model.safetensors", "sub/b.json"]
    assert read_stream(source.open_range(file_of(manifest, "sub/b.json"), 0, 3)) == b"[1]"
    only = bench.source(f"s3://{bench.bucket}/{base}?file=sub/b.json").resolve()
    assert [file.path for file in only.files] == ["sub/b.json"]


@pytest.mark.parametrize("name", ["../evil", "a//b", "./x.json", "we\\ird.json", "a\x01b.json"])
def test_names_that_would_leave_the_folder(bench: Bench, name: str) -> None:
    bench.put({**FILES, name: b"x"})
    assert _error(lambda: bench.source().resolve()).id == "weights-unsafe-name"


def test_what_is_not_there(bench: Bench) -> None:
    assert _error(lambda: bench.source("s3://no-such-bucket/m").resolve()).id == "weights-not-found"
    assert _error(lambda: bench.source(f"s3://{bench.bucket}/empty").resolve()).id == "weights-not-found"
    bench.put({"pytorch_model.bin": b"x", "config.json": b"{}"}, "pickle/")
    assert _error(lambda: bench.source(f"s3://{bench.bucket}/pickle").resolve()).id == "weights-pickle"
    bench.put({"config.json": b"{}"}, "lean/")
    assert _error(lambda: bench.source(f"s3://{bench.bucket}/lean").resolve()).id == "weights-missing"
    assert _error(lambda: bench.source(offline=True).resolve()).id == "weights-offline"


def test_a_profile_of_the_aws_tools(bench: Bench, tmp_path: Path) -> None:
    bench.put(FILES)
    (tmp_path / "credentials").write_text("[other]\naws_access_key_id = A\naws_secret_access_key = B%C\n")
    named = {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    assert bench.source(AWS_PROFILE="other", **named).resolve().files
    assert _error(lambda: bench.source(AWS_PROFILE="absent", **named)).id == "config-invalid"
    assert _error(lambda: bench.source(AWS_SECRET_ACCESS_KEY="")).id == "config-invalid"
    assert _error(lambda: bench.source(AWS_ENDPOINT_URL="ftp://host")).id == "config-invalid"


def test_the_name_in_the_cache_is_stable_and_no_other_addresss(bench: Bench) -> None:
    def repo(uri: str, **variables: str) -> str:
        return str(bench.source(uri, **variables).repo)

    assert repo("s3://bucket/a/b") == repo("s3://bucket/a/b/") == repo("s3://bucket/a/b?file=x")
    others = [
        repo("s3://bucket/a--b"),
        repo("s3://bucket/a/b", AWS_ENDPOINT_URL="http://other:1"),
        repo("gs://bucket/a/b"),
    ]
    assert len({repo("s3://bucket/a/b"), *others}) == 4
    assert bench.paths.repo(repo("s3://bucket/" + "ü/" * 200)).folder.name.startswith("models--s3--bucket")


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://bu cket/a", "s3://bucket/../a", "s3://bucket/a//b", "s3://b/x?file=", "s3:///a"]
)
def test_addresses_that_are_none(bench: Bench, uri: str) -> None:
    assert _error(lambda: bench.source(uri)).id == "weights-source-unsupported"


class Rude(BaseHTTPRequestHandler):
    """Answers every request by the server's `script`, and keeps what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((unquote(self.path), dict(self.headers)))  # type: ignore[attr-defined]
        self.server.script(self)  # type: ignore[attr-defined]

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


class RudeServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Rude)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.script: Callable[[Rude], None] = lambda request: request.say(500)
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def rude() -> Iterator[RudeServer]:
    server = RudeServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _listing(size: int, etag: str = '"e"') -> bytes:
    entry = "<Contents><Key>m/{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>{}<Size>{}</Size></Contents>"
    tag = f"<ETag>{etag}</ETag>" if etag else ""
    entries = entry.format("model.safetensors", tag, size) + entry.format("config.json", tag, 2)
    return f'<?xml version="1.0"?><ListBucketResult><Name>bucket</Name>{entries}</ListBucketResult>'.encode()


def _rude_source(rude: RudeServer, tmp_path: Path, scheme: str = "s3", **variables: str) -> Any:
    endpoint = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL"}[scheme]
    access = _access({endpoint: rude.url, **variables})
    return objectstore.parse(f"{scheme}://bucket/m", _opening(tmp_path, access))


@pytest.mark.parametrize(
    ("status", "code", "with_key", "expected"),
    [
        (403, "AccessDenied", False, "key-missing"),
        (401, "", False, "key-missing"),
        (403, "AccessDenied", True, "key-refused"),
        (403, "SignatureDoesNotMatch", True, "key-refused"),
        (400, "ExpiredToken", True, "key-refused"),
        (403, "RequestTimeTooSkewed", True, "clock-wrong"),
        (400, "AuthorizationHeaderMalformed", True, "config-invalid"),
        (301, "PermanentRedirect", True, "config-invalid"),
        (404, "NoSuchBucket", True, "weights-not-found"),
        (400, "Whatever", True, "weights-source-failed"),
        (500, "InternalError", True, "weights-source-failed"),
        (503, "SlowDown", True, "weights-source-failed"),
        (429, "", True, "weights-source-failed"),
    ],
)
def test_refusals(rude: RudeServer, tmp_path: Path, status: int, code: str, with_key: bool, expected: str) -> None:
    rude.script = lambda request: request.say(status, f"<Error><Code>{code}</Code></Error>".encode())
    source = _rude_source(rude, tmp_path, **(KEY if with_key else {}))
    assert _error(source.resolve).id == expected
    passing = status in (429, 500, 503)
    assert len(rude.seen) == (AT_ONCE.attempts if passing else 1), "the library repeats nothing by itself"
    assert all(("authorization" in {n.lower() for n in headers}) == with_key for _, headers in rude.seen)


def test_bodies_that_lie(rude: RudeServer, tmp_path: Path) -> None:
    size, now = 1000, "Thu, 01 Jan 2026 00:00:00 GMT"
    answer: dict[str, Any] = {}

    def script(request: Rude) -> None:
        if "list-type" in request.path:
            request.say(200, _listing(size))
        else:
            headers = {"Connection": "close", **answer["headers"]}  # else the client may use it while it is closing
            request.say(answer["status"], answer["body"], Last_Modified=now, **headers)
            request.close_connection = True

    rude.script = script
    source = _rude_source(rude, tmp_path)
    weights = file_of(source.resolve(), "model.safetensors")

    def told(status: int, body: bytes, **headers: str) -> Callable[[], bytes]:
        answer.update(status=status, body=body, headers={"ETag": '"e"', **headers})
        return lambda: read_stream(source.open_range(weights, 0, 100))

    assert told(206, bytes(100), Content_Range="bytes 0-99/1000")() == bytes(100)
    assert rude.seen[-1][1]["if-match"] == '"e"'
    with pytest.raises(Interrupted):
        told(206, bytes(50), Content_Range="bytes 0-99/1000", Content_Length="100")()
    with pytest.raises(Interrupted):
        told(206, bytes(50), Content_Range="bytes 0-49/1000")()
    with pytest.raises(RangeIgnored):
        told(200, bytes(1000))()
    with pytest.raises(Interrupted) as caught:
        told(503, b"<Error><Code>SlowDown</Code></Error>")()
    assert caught.value.crowded
    for wrong in ({"ETag": '"other"'}, {"Content_Range": "bytes 0-99/2000"}):
        assert "changed" in _error(told(206, bytes(100), **{"Content_Range": "bytes 0-99/1000", **wrong})).message
    assert "changed" in _error(told(412, b"")).message


def test_without_etag_and_digest_a_file_is_read_in_one_piece(rude: RudeServer, tmp_path: Path) -> None:
    rude.script = lambda request: request.say(200, _listing(1000, etag=""))
    source = _rude_source(rude, tmp_path)
    weights = file_of(source.resolve(), "model.safetensors")
    with pytest.raises(RangeIgnored):
        source.open_range(weights, 0, 100)


def test_a_reader_of_a_silent_store_can_be_called_off(rude: RudeServer, tmp_path: Path) -> None:
    over, reading = threading.Event(), threading.Event()

    def script(request: Rude) -> None:
        if "list-type" in request.path:
            return request.say(200, _listing(1000))
        request.say(206, bytes(10), Content_Length="1000", Content_Range="bytes 0-999/1000", ETag='"e"',
                    Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")  # fmt: skip
        over.wait(60)
        return None

    rude.script = script
    source = _rude_source(rude, tmp_path)
    stream = source.open_range(file_of(source.resolve(), "model.safetensors"), 0, 1000)
    outcome: list[BaseException] = []

    def read() -> None:
        reading.set()
        try:
            read_stream(stream)
        except Interrupted as error:
            outcome.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    reading.wait(10)
    stream.abort()
    reader.join(20)  # the library itself would wait for 30 seconds
    over.set()
    assert not reader.is_alive()
    assert len(outcome) == 1


def test_no_server_no_name(tmp_path: Path) -> None:
    with RudeServer() as closed:
        url = closed.url
    for endpoint in (url, "http://no-such-host.invalid:1"):
        access = _access({"AWS_ENDPOINT_URL": endpoint, **KEY})
        source = objectstore.parse("s3://bucket/m", _opening(tmp_path, access))
        assert _error(source.resolve).id == "weights-source-unreachable"


def test_google_speaks_the_same(rude: RudeServer, tmp_path: Path) -> None:
    def script(request: Rude) -> None:
        if "list-type" in request.path:
            return request.say(200, _listing(len(WEIGHTS)))
        assert urlsplit(unquote(request.path)).path == "/bucket/m/model.safetensors"
        return request.say(206, WEIGHTS[5:50], Content_Range=f"bytes 5-49/{len(WEIGHTS)}", ETag='"e"',
                           Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")  # fmt: skip

    rude.script = script
    source = _rude_source(rude, tmp_path, "gs")
    assert read_stream(source.open_range(file_of(source.resolve(), "model.safetensors"), 5, 50)) == WEIGHTS[5:50]
    assert source.repo.startswith("gs/bucket--m")
    signed = _rude_source(rude, tmp_path, "gs", GOOGLE_BEARER_TOKEN="canarySecretCanary")
    assert signed.resolve().files
    absent = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "absent.json")}
    assert _error(lambda: _rude_source(rude, tmp_path, "gs", **absent)).id == "config-invalid"


@pytest.mark.parametrize("has_role", [True, False])
def test_the_role_of_the_machine_is_borrowed_only_where_the_bucket_is_not_public(
    rude: RudeServer, tmp_path: Path, has_role: bool
) -> None:
    role = {"AccessKeyId": "AKIAEXAMPLE", "SecretAccessKey": "canarySecretCanary", "Token": "t", "Code": "Success",
            "Expiration": "2100-01-01T00:00:00Z", "LastUpdated": "2026-01-01T00:00:00Z"}  # fmt: skip
    public = False

    def script(request: Rude) -> None:
        path = request.path
        if path.startswith("/latest"):
            known = {"/latest/api/token": b"t", "/latest/meta-data/iam/security-credentials/": b"role",
                     "/latest/meta-data/iam/security-credentials/role": _json(role)}  # fmt: skip
            body = known.get(path) if has_role else None
            request.say(200 if body else 404, body or b"")
        elif public or "AKIAEXAMPLE" in request.headers.get("Authorization", ""):
            request.say(200, _listing(1000))
        else:
            request.say(403, b"<Error><Code>AccessDenied</Code></Error>")

    rude.script = script
    source = _rude_source(rude, tmp_path, AWS_METADATA_ENDPOINT=rude.url)
    if has_role:
        assert source.resolve().files
    else:
        assert _error(source.resolve).id == "key-missing"
    public = True
    before = len(rude.seen)
    assert _rude_source(rude, tmp_path, AWS_METADATA_ENDPOINT=rude.url).resolve().files
    assert len(rude.seen) == before + 1, "a public bucket is read without a look at the metadata"
    public = False
    assert _error(_rude_source(rude, tmp_path).resolve).id == "key-missing"  # a store of someone else's


def test_every_exception_of_the_library_has_a_meaning() -> None:
    known = objectstore_errors.KINDS
    classes = [c for _, c in inspect.getmembers(obstore.exceptions, inspect.isclass) if issubclass(c, BaseException)]
    assert len(classes) >= 10
    assert not {c.__name__ for c in classes} - set(known)


NO_ANSWER = {
    "InvalidCertificate(UnknownIssuer)": "tls-untrusted",
    "InvalidCertificate(Expired)": "clock-wrong",
    "InvalidCertificate(NotValidYet)": "clock-wrong",
    "tunnel error: unsuccessful": "proxy-refused",
    "builder error": "config-invalid",
    "PUT http://169.254.169.254/latest/api/token - HTTP error": "key-missing",
    "dns error": "weights-source-unreachable",
    'kind: Connect, code: 111, message: "Connection refused"': "weights-source-unreachable",
    "kind: Connect, TimedOut": "weights-source-unreachable",
    "kind: Timeout, source: TimedOut": "weights-source-failed",
    "anything else": "weights-source-failed",
}


@pytest.mark.parametrize(("text", "expected"), NO_ANSWER.items())
def test_failures_without_an_answer(text: str, expected: str) -> None:
    found = objectstore_errors.translated("GenericError", text, Asked("s3://b", False, "X"))
    assert isinstance(found, (NimctlError, Interrupted))
    assert found.id == expected


@pytest.mark.parametrize(("name", "kind"), objectstore_errors.KINDS.items())
def test_failures_by_class(name: str, kind: str) -> None:
    found = objectstore_errors.translated(name, "text", Asked("s3://b", True, "X"))
    expected = {
        "by its text": "weights-source-failed", "absent": "weights-not-found", "refused": "key-refused",
        "changed": "weights-source-failed", "unsafe name": "weights-unsafe-name", "settings": "config-invalid",
        "ours": "weights-source-failed",
    }  # fmt: skip
    assert isinstance(found, (NimctlError, Interrupted))
    assert found.id == expected[kind]
