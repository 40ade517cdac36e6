"""`ngc://`: guests first, keys exchanged and renewed, lists of several shapes, refusals explained; the cache first."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import http
from nimctl.core.fetch.access import Access
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.retry import Patience
from nimctl.core.fetch.sources import ngc, ngc_files
from nimctl.core.fetch.sources.opening import Opening
from nimctl.core.secret import Secret
from tests.lib.checkpoints import safetensors
from tests.lib.fault_hub import KEY, FaultHub, Status
from tests.lib.fault_hub.messages import Request
from tests.lib.reading import error_of, read_stream, texts

MODEL = "nim/meta/llama-3.1-8b-instruct"
URI = f"ngc://{MODEL}:1.0"
WEIGHTS = safetensors(1000)
FILES = {"README.md": b"#", "config.json": b"{}", "model.safetensors": WEIGHTS, "sub dir/a+b#c%.json": b"[]"}
FETCHED = ["config.json", "model.safetensors", "sub dir/a+b#c%.json"]
LEGACY = "bGVnYWN5LWtleS1jYW5hcnktMDEyMzQ1Njc4OQ"
CANARY = "nvapi-canaryCanaryCanary0123456789"
AT_ONCE = Patience(attempts=3, first=0.0, longest=0.0)
LISTING = "/v2/*/versions/*/files"
MEMBERS = f"/v2/org/nim/team/meta/models/{MODEL.rpartition('/')[2]}"
GUESTS = f"/v2/models/{MODEL}"


@pytest.fixture
def server() -> Iterator[FaultHub]:
    with FaultHub() as server:
        yield server


class Bench:
    """A catalog, a cache and the sources made of them."""

    def __init__(self, server: FaultHub, client: http.Client, root: Path) -> None:
        self.server, self.client, self.paths = server, client, CachePaths(root)

    def source(self, uri: str = URI, *, key: str | None = None, **options: Any) -> ngc.NgcSource:
        endpoint = options.pop("endpoint", self.server.url)
        offline = options.pop("offline", False)
        access = Access(
            ngc_key=Secret(key) if key else None, ngc_endpoint=endpoint, ngc_auth_endpoint=endpoint, offline=offline
        )
        client = http.Client(offline=True) if offline else self.client
        return ngc.parse(uri, Opening(self.paths, access, client, patience=AT_ONCE, **options))

    def error(self, uri: str = URI, **options: Any) -> NimctlError:
        return error_of(lambda: self.source(uri, **options).resolve())

    def read(self, source: ngc.NgcSource, file: File) -> bytes:
        return read_stream(source.open_range(file, 0, file.size))

    def read_all(self, source: ngc.NgcSource) -> dict[str, bytes]:
        return {file.path: self.read(source, file) for file in source.resolve().files}

    def tell(self, pattern: str, document: Any, status: int = 200, *, listener: str = "hub") -> None:
        """Answer with this document where the catalog of the fault hub has none, or another."""
        self.server.fail(pattern, Status(status, body=json.dumps(document).encode()), listener=listener)


@pytest.fixture
def bench(server: FaultHub, tmp_path: Path) -> Iterator[Bench]:
    client = http.Client(timeouts=http.Timeouts(5, 5))
    yield Bench(server, client, tmp_path)
    client.close()


EXPECTED = {path: FILES[path] for path in FETCHED}


@pytest.mark.parametrize("key", [None, CANARY])
def test_what_guests_may_have_is_fetched_without_a_key(bench: Bench, key: str | None) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, public=True)
    source = bench.source(key=key)
    assert bench.read_all(source) == EXPECTED
    assert not bench.server.credentials_seen()
    manifest = source.resolve()
    assert (manifest.source, manifest.revision, source.refs) == (URI, "1.0", ())
    assert {file.path: file.digest for file in manifest.files} == {
        path: f"sha256:{hashlib.sha256(data).hexdigest()}" for path, data in EXPECTED.items()
    }


@pytest.mark.parametrize("key", [KEY, LEGACY])
@pytest.mark.parametrize("model", [MODEL, "nvidia/segformer"])
def test_the_rest_is_fetched_with_a_key(bench: Bench, key: str, model: str) -> None:
    bench.server.add_ngc(model, "2.0+b1", FILES, key=key)
    assert bench.read_all(bench.source(f"ngc://{model}:2.0+b1", key=key)) == EXPECTED
    exchanges = bench.server.requests("/token")
    assert len(exchanges) == (1 if key == LEGACY else 0)
    assert not bench.server.credentials_seen(listener="xfiles")


def test_a_token_that_ends_on_the_way_is_renewed(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, key=LEGACY)
    source = bench.source(key=LEGACY)
    config, weights, other = source.resolve().files
    bench.read(source, weights)
    bench.server.ngc.expire_tokens()
    bench.server.expire_links()
    assert bench.read(source, config) == FILES["config.json"]
    assert bench.read(source, other) == b"[]"
    assert len(bench.server.requests("/token")) == 2


def test_a_token_that_ends_while_the_list_is_read_is_renewed(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, key=LEGACY)
    bench.server.fail(f"{MEMBERS}/*", Status(401), times=1)
    assert bench.read_all(bench.source(key=LEGACY)) == EXPECTED


def test_a_model_that_guests_may_only_look_at_is_fetched_with_the_key(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, public=True)
    bench.server.fail(f"{GUESTS}/versions/*/files/*", Status(403))
    assert bench.read_all(bench.source(key=KEY)) == EXPECTED
    with pytest.raises(NimctlError) as caught:
        bench.read_all(bench.source())
    assert caught.value.id == "key-missing"


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 1000])
@pytest.mark.parametrize("first_number", [0, 1])
def test_every_page_is_read_whichever_number_is_the_first(bench: Bench, page_size: int, first_number: int) -> None:
    shards = {f"model-{n:05d}-of-00003.safetensors": safetensors(n) for n in (1, 2, 3)}
    names = [*FILES, *shards]
    bench.server.add_ngc(MODEL, "1.0", {**FILES, **shards}, public=True)
    pages = -(-len(names) // page_size)
    for number in (None, *range(pages + 1)):
        index = 0 if number is None else number - first_number
        here = names[index * page_size : (index + 1) * page_size] if index >= 0 else names[:page_size]
        document = {
            "modelFiles": [{"path": name, "sizeInBytes": len({**FILES, **shards}[name])} for name in here],
            "paginationInfo": {"totalPages": pages, "totalResults": len(names)},
        }

        def asks(request: Request, number: int | None = number) -> bool:
            return request.query.get("page-number") == (None if number is None else str(number))

        bench.server.fail(LISTING, Status(200, body=json.dumps(document).encode()), when=asks)
    assert [file.path for file in bench.source().resolve().files] == sorted([*FETCHED, *shards])


def test_a_list_that_stays_short_is_refused(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, public=True)
    page = {"modelFiles": [{"path": "model.safetensors", "sizeInBytes": 1}], "paginationInfo": {"totalResults": 2}}
    bench.tell(LISTING, page)
    error = bench.error()
    assert error.id == "weights-source-failed" and "1 of 2" in error.cause


def test_lists_without_sizes_are_completed_by_asking_each_file(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, public=True)
    bench.tell(LISTING, {"urls": ["x"] * len(FILES), "filepath": list(FILES)})
    source = bench.source()
    assert bench.read_all(source) == EXPECTED
    assert {file.digest for file in source.resolve().files} == {None}


def test_an_empty_file_in_a_list_without_sizes_is_empty(bench: Bench) -> None:
    content = {**FILES, "added_tokens.txt": b""}
    bench.server.add_ngc(MODEL, "1.0", content, public=True)
    bench.tell(LISTING, {"urls": ["x"] * len(content), "filepath": list(content)})
    assert bench.source().resolve().files[0] == File("added_tokens.txt", 0, version="version 1.0")


@pytest.mark.parametrize("status", [400, 401])
def test_organisations_that_show_no_list_are_read_by_their_checksums(bench: Bench, status: int) -> None:
    lines = "".join(f"{'a' * 64}  {path}\n" for path in FILES)
    bench.server.add_ngc(MODEL, "1.0", {**FILES, "checksums.blake3": lines.encode()}, key=KEY)
    bench.tell(f"{MEMBERS}/versions/1.0/files", {"requestStatus": {"statusDescription": "Org contex missing"}}, status)
    assert bench.read_all(bench.source(key=KEY)) == EXPECTED


def test_without_a_list_and_checksums_the_key_is_said_to_be_for_another_organisation(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, key=KEY)
    bench.tell(f"{MEMBERS}/versions/1.0/files", {"requestStatus": {"statusDescription": "Org contex missing"}}, 400)
    error = bench.error(key=KEY)
    assert error.id == "key-refused" and "Org contex missing" in error.cause


@pytest.mark.parametrize("uri", [f"ngc://{MODEL}", f"ngc://{MODEL}:latest"])
@pytest.mark.parametrize(("public", "key"), [(True, None), (False, KEY)])
def test_the_latest_version_is_pinned_first(bench: Bench, uri: str, public: bool, key: str | None) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, public=public)
    bench.server.add_ngc(MODEL, "1.1", {**FILES, "config.json": b"{new}"}, public=public)
    bench.tell(GUESTS if public else MEMBERS, {"model": {"latestVersionIdStr": "1.1", "canGuestDownload": public}})
    source = bench.source(uri, key=key)
    assert source.resolve().revision == "1.1" and source.refs == ("latest",)
    assert bench.read_all(source)["config.json"] == b"{new}"


@pytest.mark.parametrize("latest", [7, "..", "a/b", "latest", "x" * 200])
def test_a_latest_version_that_cannot_be_one_is_refused(bench: Bench, latest: Any) -> None:
    bench.tell(GUESTS, {"model": {"latestVersionIdStr": latest}})
    assert bench.error(f"ngc://{MODEL}").id == "weights-source-failed"


def test_a_model_without_versions_says_so(bench: Bench) -> None:
    bench.tell(GUESTS, {"model": {"latestVersionIdStr": ""}})
    assert bench.error(f"ngc://{MODEL}").id == "weights-revision-unknown"


def test_guests_who_may_not_download_are_asked_for_a_key(bench: Bench) -> None:
    bench.tell(GUESTS, {"model": {"latestVersionIdStr": "1.0", "canGuestDownload": False}})
    assert bench.error(f"ngc://{MODEL}").id == "key-missing"


def test_single_files_are_chosen_by_the_address(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, public=True)
    manifest = bench.source(f"{URI}?file=sub%20dir/a+b%23c%25.json").resolve()
    assert [file.path for file in manifest.files] == ["sub dir/a+b#c%.json"]
    assert bench.error(f"{URI}?file=absent").id == "weights-not-found"


# What NGC refuses.


def test_a_key_is_asked_for_where_one_is_needed(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES)
    error = bench.error()
    assert (error.id, error.exit_code) == ("key-missing", 4)
    assert "NGC_API_KEY" in error.fix and "https://org.ngc.nvidia.com/setup/personal-keys" in error.fix


@pytest.mark.parametrize("key", [CANARY, LEGACY])
def test_a_key_that_is_wrong_is_said_to_be_refused(bench: Bench, key: str) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES)
    error = bench.error(key=key)
    assert (error.id, error.exit_code) == ("key-refused", 4) and "personal key" in error.fix


def test_a_key_without_the_right_is_sent_to_the_terms(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES)
    bench.server.ngc.keys.add(CANARY)
    error = bench.error(key=CANARY)
    assert (error.id, error.exit_code) == ("terms-not-accepted", 4)
    assert "https://catalog.ngc.nvidia.com/orgs/nim/teams/meta/models/llama-3.1-8b-instruct" in error.fix
    assert "no such model" in error.cause


def test_a_version_that_is_not_there_is_answered_with_those_that_are(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, public=True)
    bench.tell(f"{GUESTS}/versions", {"modelVersions": [{"versionId": v} for v in ("1.0", "0.9")]})
    error = bench.error(f"ngc://{MODEL}:9")
    assert (error.id, error.exit_code) == ("weights-revision-unknown", 6)
    assert "1.0, 0.9" in error.cause and error.evidence == ("1.0", "0.9")


@pytest.mark.parametrize("key", [None, KEY])
def test_a_model_that_is_not_there_may_be_hidden(bench: Bench, key: str | None) -> None:
    bench.server.add_ngc("nvidia/other", "1.0", FILES)
    error = bench.error(key=key)
    assert (error.id, error.exit_code) == ("weights-not-found", 6)
    assert ("this key may not see it" if key else "no key was given") in error.message


def test_a_signature_of_another_time_means_that_the_clock_is_wrong(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, public=True)
    bench.server.fail("config.json", Status(403, body=b"<Code>RequestTimeTooSkewed</Code>"), on="content")
    source = bench.source()
    with pytest.raises(NimctlError) as caught:
        bench.read_all(source)
    assert caught.value.id == "clock-wrong"


@pytest.mark.parametrize("key", [None, KEY])
def test_a_refusal_of_the_storage_is_not_taken_for_one_of_ngc(bench: Bench, key: str | None) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, public=key is None)
    bench.server.fail("config.json", Status(403, body=b"<Code>AccessDenied</Code>"), on="content")
    source = bench.source(key=key)
    with pytest.raises(NimctlError) as caught:
        bench.read_all(source)
    assert caught.value.id == "weights-source-failed"


def test_what_may_pass_is_asked_again(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, key=LEGACY)
    bench.server.fail("/token", "2*status(503)->off")
    bench.server.fail(LISTING, "status(429, retry_after=0)->reset()->off")
    assert bench.source(key=LEGACY).resolve().files


@pytest.mark.parametrize(
    ("document", "id"),
    [
        ([], "weights-source-failed"),
        ({}, "weights-source-failed"),
        ({"modelFiles": 7}, "weights-source-failed"),
        ({"modelFiles": [7]}, "weights-source-failed"),
        ({"modelFiles": [{"path": "a"}]}, "weights-source-failed"),
        ({"modelFiles": [{"path": "a", "sizeInBytes": -1}]}, "weights-source-failed"),
        ({"modelFiles": [{"path": "a", "sizeInBytes": 1, "sha256_base64": "!"}]}, "weights-source-failed"),
        ({"modelFiles": [{"path": "a", "sizeInBytes": 1, "sha256_base64": 7}]}, "weights-source-failed"),
        ({"modelFiles": [{"path": "a", "sizeInBytes": 1, "sha256_base64": "YWJj"}]}, "weights-source-failed"),
        ({"modelFiles": [{"path": "../a", "sizeInBytes": 1}]}, "weights-unsafe-name"),
        ({"filepath": ["/etc/passwd"], "urls": ["x"]}, "weights-unsafe-name"),
        ({"requestStatus": {"statusCode": "INTERNAL_ERROR"}, "modelFiles": []}, "weights-source-failed"),
        ({"modelFiles": [], "paginationInfo": {"totalPages": 10**9}}, "weights-source-failed"),
        ({"modelFiles": []}, "weights-missing"),
        ({"modelFiles": [{"path": "a.bin", "sizeInBytes": 1}]}, "weights-pickle"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_list_that_cannot_be_right_fetches_nothing(bench: Bench, document: Any, id: str) -> None:  # noqa: A002
    bench.server.add_ngc(MODEL, "1.0", FILES, public=True)
    bench.tell(LISTING, document)
    assert bench.error().id == id
    assert not bench.server.requests(role="content")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "modelFiles",
                    "filepath",
                    "path",
                    "sizeInBytes",
                    "paginationInfo",
                    "totalPages",
                    "modelVersion",
                    "sha256_base64",
                    "requestStatus",
                    "modelVersions",
                    "versionId",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_any_json_is_a_page_or_an_error(document: Any) -> None:
    readers: list[Callable[[Any, str], Any]] = [ngc_files.page, ngc_files.versions]
    for reader in readers:
        try:
            reader(document, "the list")
        except NimctlError as error:
            assert error.id in ("weights-source-failed", "weights-unsafe-name")


@pytest.mark.parametrize("text", ["x", f"{'a' * 63}  b", f"{'a' * 64} b", "\xff"])
def test_checksums_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(NimctlError) as caught:
        ngc_files.checksum_paths(text, "the checksums")
    assert caught.value.id == "weights-source-failed"


# The cache first.


def mark(bench: Bench, source: ngc.NgcSource, version: str, ref: str | None = None) -> None:
    """A verified version in the cache."""
    repo = bench.paths.repo(source.repo, "ngc")
    snapshot = repo.snapshot(version)
    snapshot.mkdir(parents=True)
    for path in ("config.json", "model.safetensors"):
        (snapshot / path).write_bytes(FILES[path])
    files = tuple(File(path, len(FILES[path])) for path in ("config.json", "model.safetensors"))
    repo.markers.mkdir()
    repo.marker(version).write_text(json.dumps(Manifest(URI, version, files).to_json()))
    if ref:
        repo.refs.mkdir()
        repo.ref(ref).write_text(version)


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("version", [":1.0", ":latest", ""])
def test_complete_weights_need_no_network(bench: Bench, version: str, offline: bool) -> None:
    source = bench.source(f"ngc://{MODEL}{version}", offline=offline)
    mark(bench, source, "1.0", "latest")
    assert source.resolve().revision == "1.0"
    assert not bench.server.requests()


def test_a_refresh_moves_to_the_latest(bench: Bench) -> None:
    bench.server.add_ngc(MODEL, "1.1", FILES, public=True)
    bench.tell(GUESTS, {"model": {"latestVersionIdStr": "1.1"}})
    source = bench.source(f"ngc://{MODEL}", refresh=True)
    mark(bench, source, "1.0", "latest")
    assert bench.source(f"ngc://{MODEL}").resolve().revision == "1.0"
    assert source.resolve().revision == "1.1"


def test_what_a_nim_left_is_found_offline(bench: Bench) -> None:
    """Blobs named by S3's tags, dots as underscores, the version in refs/, as a NIM's cache shows them."""
    folder = bench.paths.root / "ngc" / "hub" / "models--nim--meta--llama-3_1-8b-instruct"
    (folder / "blobs").mkdir(parents=True)
    snapshot = folder / "snapshots" / "1.0"
    snapshot.mkdir(parents=True)
    for path, data in (("config.json", b"{}"), ("model.safetensors", WEIGHTS)):
        name = hashlib.md5(data, usedforsecurity=False).hexdigest()
        (folder / "blobs" / name).write_bytes(data)
        (snapshot / path).symlink_to(f"../../blobs/{name}")
    assert [file.path for file in bench.source(offline=True).resolve().files] == ["config.json", "model.safetensors"]
    (folder / "blobs" / hashlib.md5(WEIGHTS, usedforsecurity=False).hexdigest()).write_bytes(b"cut")
    error = bench.error(offline=True)
    assert error.id == "weights-offline" and f"nimctl pull --weights {URI}" in error.fix


# Keys.


@pytest.mark.parametrize("code", [200, 400, 401, 403, 404, 410, 429, 500])
@pytest.mark.parametrize("key", [KEY, LEGACY])
def test_key_and_token_are_never_shown(bench: Bench, key: str, code: int) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES, key=key)
    source = bench.source(key=key)
    manifest = source.resolve()
    secrets = [key, base64.b64encode(f"$oauthtoken:{key}".encode()).decode(), "ngc-token-"]
    body = json.dumps({"requestStatus": {"statusDescription": f"bad {key}"}}).encode()
    bench.server.fail("/*", Status(code, body=body))
    for action in (bench.source(key=key).resolve, lambda: bench.read(source, manifest.files[1])):
        with pytest.raises(Exception) as caught:
            action()
        assert not [secret for secret in secrets if secret in texts(caught.value)]
    assert not [secret for secret in secrets if secret in repr(source) + repr(vars(source)) + repr(manifest)]
    assert not [entry for entry in bench.server.requests() if key in entry.target]


@pytest.mark.parametrize("key", [f"{CANARY}\nsecond", f'"{LEGACY}"', f"{CANARY} x", f"{LEGACY}é"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(bench: Bench, key: str) -> None:
    bench.server.add_ngc(MODEL, "1.0", FILES)
    error = bench.error(key=key)
    assert error.id == "key-refused" and not {CANARY, LEGACY} & set(texts(error).split('"'))
    assert CANARY not in texts(error) and LEGACY not in texts(error)


# Addresses.


@pytest.mark.parametrize(
    "uri",
    ["ngc://", "ngc://nim", "ngc://a/b/c/d:1", "ngc://../..", "ngc://a/..:1", "ngc://a/b:..", "ngc://a/b:1/2",
     "ngc://a--b/c:1", "ngc://a/b?version=1", "ngc://a/b:", "hf://a/b"],
)  # fmt: skip
def test_what_is_no_address_is_refused(bench: Bench, uri: str) -> None:
    assert bench.error(uri).id == "weights-source-unsupported"


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab/.:@?=%#-+\\\x00\n é", max_size=30))
def test_no_address_leaves_the_cache(tail: str) -> None:
    paths = CachePaths(Path("/cache"))
    try:
        source = ngc.parse(f"ngc://org/{tail}", Opening(paths, Access(), http.Client(offline=True)))
    except NimctlError as error:
        assert error.id == "weights-source-unsupported"
    else:
        assert paths.repo(source.repo, "ngc").folder.parent == paths.root / "ngc" / "hub"
