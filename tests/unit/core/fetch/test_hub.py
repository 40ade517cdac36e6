"""`hf://`: pinned to a commit, listed whole, fetched by ranges; refusals explained; the cache first."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimctl.core.cache import CachePaths, RepoPaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import http
from nimctl.core.fetch.access import Access
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.retry import Patience
from nimctl.core.fetch.sources import hub, listing
from nimctl.core.fetch.sources.folder import require_no_links_outside
from nimctl.core.fetch.sources.opening import Opening
from nimctl.core.secret import Secret
from tests.lib.checkpoints import safetensors
from tests.lib.fault_hub import TOKEN, FaultHub, Status, sha256_of
from tests.lib.fault_hub.content import InMemory
from tests.lib.reading import error_of, read_stream, texts
from tests.lib.users import as_user, needs_root, open_folder

NAME = "org/name"
WEIGHTS = safetensors(1000)
FILES = {
    ".gitattributes": b"x",
    "README.md": b"# name",
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "sub folder/a+b#c%.json": b"[]",
}
FETCHED = ["config.json", "model.safetensors", "sub folder/a+b#c%.json"]
CANARY = "hf_canaryCanaryCanary0123456789"
AT_ONCE = Patience(attempts=3, first=0.0, longest=0.0)


@pytest.fixture
def server() -> Iterator[FaultHub]:
    with FaultHub() as server:
        yield server


@pytest.fixture
def client() -> Iterator[http.Client]:
    client = http.Client(timeouts=http.Timeouts(5, 5))
    yield client
    client.close()


class Bench:
    """A hub, a cache and the sources made of them."""

    def __init__(self, server: FaultHub, client: http.Client, root: Path) -> None:
        self.server, self.client, self.paths = server, client, CachePaths(root)
        self.repo = self.paths.repo(NAME)

    def source(self, uri: str = f"hf://{NAME}", *, token: str | None = None, **options: Any) -> hub.HubSource:
        access = Access(
            hf_token=Secret(token) if token else None,
            hf_endpoint=options.pop("endpoint", self.server.url),
            offline=options.pop("offline", False),
        )
        client = http.Client(offline=True) if access.offline else self.client
        return hub.parse(uri, Opening(self.paths, access, client, patience=AT_ONCE, **options))

    def error(self, uri: str = f"hf://{NAME}", **options: Any) -> NimctlError:
        return error_of(lambda: self.source(uri, **options).resolve())

    def read(self, source: hub.HubSource, file: File, start: int = 0, stop: int | None = None) -> bytes:
        return read_stream(source.open_range(file, start, file.size if stop is None else stop))


@pytest.fixture
def bench(server: FaultHub, client: http.Client, tmp_path: Path) -> Bench:
    return Bench(server, client, tmp_path)


def lay_down(repo: RepoPaths, commit: str, content: dict[str, bytes], *, ref: str = "main") -> None:
    """What `hf download` leaves: blobs named by their hash, links, a reference."""
    repo.blobs.mkdir(parents=True, exist_ok=True)
    for path, data in content.items():
        name = sha256_of(InMemory(data))
        (repo.blobs / name).write_bytes(data)
        link = repo.snapshot(commit) / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../" * (path.count("/") + 2) + f"blobs/{name}")
    repo.ref(ref).parent.mkdir(parents=True, exist_ok=True)
    repo.ref(ref).write_text(commit)


def mark(repo: RepoPaths, manifest: Manifest) -> None:
    """Our marker: this manifest was verified."""
    repo.markers.mkdir(parents=True, exist_ok=True)
    repo.marker(manifest.revision).write_text(json.dumps(manifest.to_json()))


LAID = {"config.json": b"{}", "model.safetensors": WEIGHTS}


def test_a_revision_is_pinned_and_listed_with_sizes_and_digests(bench: Bench) -> None:
    commit = bench.server.add_repo(NAME, FILES)
    source = bench.source()
    manifest = source.resolve()
    assert (manifest.source, manifest.revision, source.refs) == (f"hf://{NAME}", commit, ("main",))
    assert [file.path for file in manifest.files] == FETCHED
    config, weights, _ = manifest.files
    assert (weights.size, weights.digest) == (len(WEIGHTS), f"sha256:{sha256_of(InMemory(WEIGHTS))}")
    assert config.digest == "git-sha1:9e26dfeeb6e641a33dae4961196235bdb965b21b"  # `printf {} | git hash-object --stdin`


def test_files_are_read_by_ranges_at_the_commit_that_was_resolved(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES)
    source = bench.source()
    manifest = source.resolve()
    bench.server.add_repo(NAME, {**FILES, "config.json": b"{moved}"})  # main moves on
    assert [bench.read(source, file) for file in manifest.files] == [FILES[path] for path in FETCHED]
    assert bench.read(source, manifest.files[1], 5, 25) == WEIGHTS[5:25]


@pytest.mark.parametrize("address", [":feature/new-heads", "@feature/new-heads", ":v1.0+rc@2"])
def test_branches_with_slashes_and_tags_are_found(bench: Bench, address: str) -> None:
    commit = bench.server.add_repo(NAME, FILES, revision_name=address[1:])
    bench.server.add_repo(NAME, LAID)
    source = bench.source(f"hf://{NAME}{address}")
    assert source.resolve().revision == commit
    assert source.refs == (address[1:],)
    assert bench.source(f"hf://{NAME}:{commit}").refs == ()


def test_every_page_of_the_list_is_read_from_the_endpoint_itself(bench: Bench) -> None:
    shards = {f"model-{n:05d}-of-00025.safetensors": safetensors(n) for n in range(1, 26)}
    bench.server.hugging_face.page_size = 4
    bench.server.add_repo(NAME, {**FILES, **shards}, private=True)
    mirror = bench.server.listen("mirror", "127.0.0.4")
    manifest = bench.source(token=TOKEN, endpoint=mirror).resolve()
    assert [file.path for file in manifest.files] == sorted([*FETCHED, *shards])
    assert {entry.listener for entry in bench.server.requests()} == {"mirror"}


def test_pages_without_end_are_given_up(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES)
    again = {"Link": '<https://elsewhere.invalid/x?recursive=true&cursor=1>; rel="next"'}
    bench.server.fail("/api/*/tree/*", Status(200, headers=again, body=b"[]"))
    error = bench.error()
    assert error.id == "weights-source-failed" and "do not end" in error.cause


def test_single_files_are_chosen_by_the_address(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES)
    manifest = bench.source(f"hf://{NAME}:main?file=README.md&file=sub%20folder/a+b%23c%25.json").resolve()
    assert [file.path for file in manifest.files] == ["README.md", "sub folder/a+b#c%.json"]
    assert manifest.source == f"hf://{NAME}:main?file=README.md&file=sub%20folder/a%2Bb%23c%25.json"
    assert bench.source(manifest.source).resolve() == manifest


# What the Hub refuses.


def test_a_gated_model_needs_a_token_and_its_terms(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES, gated="manual", gated_listing=True)
    bench.server.hugging_face.tokens.add(CANARY)
    page = f"{bench.server.url}/{NAME}"
    without, outside = bench.error(), bench.error(token=CANARY)
    assert (without.id, without.exit_code) == ("key-missing", 4) and page in without.fix
    assert (outside.id, outside.exit_code) == ("terms-not-accepted", 4) and page in outside.fix
    assert bench.source(token=TOKEN).resolve().files


def test_a_gated_model_whose_list_is_open_refuses_its_files(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES, gated="auto")
    bench.server.hugging_face.tokens.add(CANARY)
    for token, wanted in ((None, "key-missing"), (CANARY, "terms-not-accepted")):
        source = bench.source(token=token)
        with pytest.raises(NimctlError) as caught:
            bench.read(source, source.resolve().files[0])
        assert caught.value.id == wanted


def test_a_model_that_is_not_there_may_be_private(bench: Bench) -> None:
    bench.server.add_repo("org/other", FILES)
    without, inside = bench.error(), bench.error(token=TOKEN)
    assert without.id == "key-missing" and "does not exist" in without.message and "private" in without.message
    assert (inside.id, inside.exit_code) == ("weights-not-found", 6) and "may not see it" in inside.message


def test_a_token_that_is_wrong_is_said_to_be_refused(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES)
    error = bench.error(token=CANARY)
    assert (error.id, error.exit_code) == ("key-refused", 4)


def test_a_token_without_the_permission_is_said_to_be_refused(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES)
    bench.server.fail("/api/*", Status(403, body=b'{"error": "missing permissions"}'))
    assert bench.error(token=TOKEN).id == "key-refused"
    assert bench.error().id == "weights-source-failed"


@pytest.mark.parametrize(
    ("fault", "id"),
    [
        (Status(403, body=b'{"error": "Access to this resource is disabled."}'), "weights-not-found"),
        (Status(401, headers={"X-Error-Code": "RepoNotFound"}), "weights-not-found"),
        (Status(404, body=b'{"error": "Invalid rev id: main"}'), "weights-revision-unknown"),
        (Status(404, body=b"plain"), "weights-not-found"),
        (Status(451), "weights-source-failed"),
    ],
    ids=lambda value: str(getattr(value, "code", value)),
)
def test_other_refusals_are_told_apart(bench: Bench, fault: Status, id: str) -> None:  # noqa: A002
    bench.server.add_repo(NAME, FILES)
    bench.server.fail("/api/*", fault)
    assert bench.error(token=TOKEN).id == id


def test_a_revision_that_is_not_there_is_named(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES)
    error = bench.error(f"hf://{NAME}:v9")
    assert (error.id, error.exit_code) == ("weights-revision-unknown", 6) and "'v9'" in error.message


def test_a_file_that_a_mirror_lists_and_does_not_have_is_named(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES)
    source = bench.source()
    manifest = source.resolve()
    with pytest.raises(NimctlError) as caught:
        bench.read(source, replace(manifest.files[1], path="gone.safetensors"))
    assert caught.value.id == "weights-not-found" and "gone.safetensors" in caught.value.message


@pytest.mark.parametrize("body", [b"RequestTimeTooSkewed", b"<Message>Request is not yet valid</Message>"])
def test_a_signature_of_another_time_means_that_the_clock_is_wrong(bench: Bench, body: bytes) -> None:
    bench.server.add_repo(NAME, FILES)
    bench.server.fail("model.safetensors", Status(403, body=body), on="content")
    source = bench.source()
    with pytest.raises(NimctlError) as caught:
        bench.read(source, source.resolve().files[1])
    assert (caught.value.id, caught.value.exit_code) == ("clock-wrong", 6)


def test_a_refusal_from_another_day_means_that_the_clock_is_wrong() -> None:
    def answered(age: timedelta, status: int = 401) -> NimctlError | None:
        date = format_datetime(datetime.now(UTC) - age, usegmt=True)
        return listing.clock_problem(http.Answer(status, {"date": date}, b"", "https://hub"))

    for age in (timedelta(days=1), timedelta(days=-1)):
        found = answered(age)
        assert found and found.id == "clock-wrong"
    assert answered(timedelta(hours=11)) is None
    assert answered(timedelta(days=1), status=404) is None


def test_a_refusal_of_the_storage_is_not_taken_for_one_of_the_hub(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES)
    bench.server.fail("model.safetensors", Status(403, body=b"<Code>AccessDenied</Code>"), on="content")
    source = bench.source(token=TOKEN)
    with pytest.raises(NimctlError) as caught:
        bench.read(source, source.resolve().files[1])
    assert caught.value.id == "weights-source-failed"


def test_what_may_pass_is_asked_again(bench: Bench) -> None:
    commit = bench.server.add_repo(NAME, FILES)
    bench.server.fail("/api/*", "status(429, retry_after=0)->off->reset()->off")
    assert bench.source().resolve().revision == commit


def test_what_does_not_pass_ends_in_an_error(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES)
    rule = bench.server.fail("/api/*", Status(503))
    error = bench.error()
    assert error.id == "weights-source-failed" and rule.hits == AT_ONCE.attempts


# What the Hub must not say.

COMMIT = "4ce1a52d7b1b5c1c9f0e1a3c2d4b5a6978695a4b"


@pytest.mark.parametrize(
    ("entry", "id"),
    [
        ({"path": "../../etc/passwd"}, "weights-unsafe-name"),
        ({"path": "/etc/passwd"}, "weights-unsafe-name"),
        ({"path": "a/../b"}, "weights-unsafe-name"),
        ({"path": "a\\b"}, "weights-unsafe-name"),
        ({"path": "a\nb"}, "weights-unsafe-name"),
        ({"path": ""}, "weights-unsafe-name"),
        ({"path": "x" * 300}, "weights-unsafe-name"),
        ({"path": None}, "weights-source-failed"),
        ({"size": -1}, "weights-source-failed"),
        ({"size": "1"}, "weights-source-failed"),
        ({"size": True}, "weights-source-failed"),
        ({"oid": "abc"}, "weights-source-failed"),
        ({"lfs": {"oid": "abc", "size": 1}}, "weights-source-failed"),
        ({"lfs": []}, "weights-source-failed"),
        ({"path": "config.json", "size": 7}, "weights-source-failed"),
        ({"path": "config.json/below"}, "weights-source-failed"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_list_that_cannot_be_right_fetches_nothing(bench: Bench, entry: dict[str, Any], id: str) -> None:  # noqa: A002
    bench.server.add_repo(NAME, FILES)
    good = {"type": "file", "path": "config.json", "size": 2, "oid": COMMIT}
    page = [good, {**good, "path": "b.safetensors"}, {**good, "path": "c.json", **entry}]
    bench.server.fail("/api/*/tree/*", Status(200, body=json.dumps(page).encode()))
    error = bench.error()
    assert (error.id, error.exit_code) == (id, 6)
    assert not bench.server.requests(role="content")


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"{}", b'{"sha": 7}', b'{"sha": "main"}', b"<html>", b"\xff"])
def test_a_revision_that_cannot_be_right_is_refused(bench: Bench, body: bytes) -> None:
    bench.server.add_repo(NAME, FILES)
    bench.server.fail("/api/*/revision/*", Status(200, body=body))
    assert bench.error().id == "weights-source-failed"


def test_a_commit_is_not_resolved_to_another_one(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES)
    bench.server.fail("/api/*/revision/*", Status(200, body=json.dumps({"sha": "0" * 40}).encode()))
    assert bench.error(f"hf://{NAME}:{COMMIT}").id == "weights-source-failed"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "path", "size", "oid", "lfs", "sha"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_any_json_for_a_file_is_a_file_or_an_error(value: Any) -> None:
    try:
        file = hub._file(value, "the list")
    except NimctlError as error:
        assert error.id in ("weights-source-failed", "weights-unsafe-name")
    else:
        assert File(file.path, file.size, file.digest) == file


# The cache first.


@pytest.mark.parametrize("options", [{}, {"offline": True}, {"offline": True, "refresh": True}])
@pytest.mark.parametrize("revision", ["", ":main", f":{COMMIT}"])
def test_complete_weights_need_no_network(bench: Bench, revision: str, options: dict[str, bool]) -> None:
    lay_down(bench.repo, COMMIT, LAID)
    files = tuple(File(path, len(data)) for path, data in LAID.items())
    mark(bench.repo, Manifest(f"hf://{NAME}", COMMIT, files))
    assert bench.source(f"hf://{NAME}{revision}", **options).resolve().revision == COMMIT
    assert not bench.server.requests()


def test_a_start_stays_at_its_revision_and_a_refresh_moves(bench: Bench) -> None:
    lay_down(bench.repo, COMMIT, LAID)
    mark(bench.repo, Manifest(f"hf://{NAME}", COMMIT, tuple(File(path, len(data)) for path, data in LAID.items())))
    commit = bench.server.add_repo(NAME, FILES)
    assert bench.source().resolve().revision == COMMIT
    assert bench.source(refresh=True).resolve().revision == commit


def test_a_file_that_shrank_since_makes_the_source_be_asked(bench: Bench) -> None:
    commit = bench.server.add_repo(NAME, LAID)
    lay_down(bench.repo, commit, LAID)
    mark(bench.repo, Manifest(f"hf://{NAME}", commit, tuple(File(path, len(data)) for path, data in LAID.items())))
    (bench.repo.snapshot(commit) / "model.safetensors").resolve().write_bytes(b"short")
    assert bench.source().resolve().files
    assert bench.server.requests("/api/*")


def test_single_files_that_were_fetched_are_not_taken_for_the_checkpoint(bench: Bench) -> None:
    commit = bench.server.add_repo(NAME, FILES)
    lay_down(bench.repo, commit, {"config.json": b"{}"})
    mark(bench.repo, Manifest(f"hf://{NAME}?file=config.json", commit, (File("config.json", 2),)))
    assert not bench.server.requests()
    assert bench.source(f"hf://{NAME}?file=config.json").resolve().files == (File("config.json", 2),)
    assert not bench.server.requests()
    assert [file.path for file in bench.source().resolve().files] == FETCHED


def test_more_single_files_than_were_fetched_are_asked_for(bench: Bench) -> None:
    commit = bench.server.add_repo(NAME, FILES)
    lay_down(bench.repo, commit, {"config.json": b"{}"})
    mark(bench.repo, Manifest(f"hf://{NAME}?file=config.json", commit, (File("config.json", 2),)))
    manifest = bench.source(f"hf://{NAME}?file=config.json&file=README.md").resolve()
    assert [file.path for file in manifest.files] == ["README.md", "config.json"]


def test_a_refresh_that_finds_the_same_commit_does_not_list_it_again(bench: Bench) -> None:
    commit = bench.server.add_repo(NAME, LAID)
    lay_down(bench.repo, commit, LAID)
    mark(bench.repo, Manifest(f"hf://{NAME}", commit, tuple(File(path, len(data)) for path, data in LAID.items())))
    assert bench.source(refresh=True).resolve().revision == commit
    assert [entry.path for entry in bench.server.requests()] == [f"/api/models/{NAME}/revision/main"]


def test_offline_a_refresh_keeps_the_verified_digests(bench: Bench) -> None:
    lay_down(bench.repo, COMMIT, LAID)
    files = tuple(File(path, len(data), f"md5:{'0' * 32}") for path, data in LAID.items())
    mark(bench.repo, Manifest(f"hf://{NAME}", COMMIT, files))
    assert bench.source(offline=True, refresh=True).resolve().files == files


@needs_root
def test_offline_what_may_not_be_read_is_said_so() -> None:
    with open_folder() as root:
        paths = CachePaths(root)
        lay_down(paths.repo(NAME), COMMIT, LAID)
        for blob in paths.repo(NAME).blobs.iterdir():
            blob.chmod(0o600)
        source = hub.parse(f"hf://{NAME}", Opening(paths, Access(offline=True), http.Client(offline=True)))
        with pytest.raises(NimctlError) as caught:
            as_user(source.resolve)
    assert caught.value.id == "weights-unreadable"


def test_beside_whole_weights_an_unreachable_source_is_soon_given_up(bench: Bench) -> None:
    lay_down(bench.repo, COMMIT, LAID)
    rule = bench.server.fail("/api/*", Status(503))
    patient = replace(AT_ONCE, attempts=9)
    opening = Opening(bench.paths, Access(hf_endpoint=bench.server.url), bench.client, patience=patient)
    source = hub.parse(f"hf://{NAME}", opening)
    with pytest.raises(NimctlError):
        source.resolve()
    assert rule.hits == 3


@pytest.mark.parametrize("revision", ["", ":main", f":{COMMIT}"])
def test_offline_what_others_left_is_taken_if_it_is_whole(bench: Bench, revision: str) -> None:
    lay_down(bench.repo, COMMIT, {**LAID, "pytorch_model.bin": b"x", "README.md": b"x"})
    manifest = bench.source(f"hf://{NAME}{revision}", offline=True).resolve()
    assert [file.path for file in manifest.files] == ["config.json", "model.safetensors"]
    assert manifest.files[1].digest == f"sha256:{sha256_of(InMemory(WEIGHTS))}"


def spoilt_by_nothing_there(repo: RepoPaths) -> None:
    shutil.rmtree(repo.folder)


def spoilt_by_no_reference(repo: RepoPaths) -> None:
    repo.ref("main").unlink()


def spoilt_by_a_dangling_link(repo: RepoPaths) -> None:
    (repo.snapshot(COMMIT) / "model.safetensors").resolve().unlink()


def spoilt_by_a_cut_blob(repo: RepoPaths) -> None:
    (repo.snapshot(COMMIT) / "model.safetensors").resolve().write_bytes(WEIGHTS[:100])


def spoilt_by_a_missing_shard(repo: RepoPaths) -> None:
    (repo.snapshot(COMMIT) / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')


def spoilt_by_missing_weights(repo: RepoPaths) -> None:
    (repo.snapshot(COMMIT) / "model.safetensors").unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        spoilt_by_nothing_there,
        spoilt_by_no_reference,
        spoilt_by_a_dangling_link,
        spoilt_by_a_cut_blob,
        spoilt_by_a_missing_shard,
        spoilt_by_missing_weights,
    ],
)
def test_offline_what_is_not_whole_is_answered_with_the_command_that_fetches_it(bench: Bench, spoil: Any) -> None:
    lay_down(bench.repo, COMMIT, LAID)
    spoil(bench.repo)
    error = bench.error(offline=True)
    assert (error.id, error.exit_code) == ("weights-offline", 6)
    assert f"nimctl pull --weights hf://{NAME}" in error.fix


def test_offline_pickles_stay_pickles(bench: Bench) -> None:
    lay_down(bench.repo, COMMIT, {"config.json": b"{}", "pytorch_model.bin": b"x"})
    assert bench.error(offline=True).id == "weights-pickle"


def test_without_a_route_whole_weights_are_taken_but_not_for_a_refresh(bench: Bench) -> None:
    lay_down(bench.repo, COMMIT, LAID)
    closed = FaultHub()
    endpoint = closed.url
    closed.close()
    assert bench.source(endpoint=endpoint).resolve().revision == COMMIT
    assert bench.error(endpoint=endpoint, refresh=True).id == "weights-source-unreachable"
    (bench.repo.snapshot(COMMIT) / "model.safetensors").unlink()
    assert bench.error(endpoint=endpoint).id == "weights-source-unreachable"


def test_a_proxy_that_refuses_leaves_whole_weights_usable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", bench.server.url)  # which answers CONNECT with no tunnel
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    assert bench.error(endpoint="https://hub.invalid").id == "proxy-refused"
    lay_down(bench.repo, COMMIT, LAID)
    assert bench.source(endpoint="https://hub.invalid").resolve().revision == COMMIT


def test_what_is_in_the_cache_does_not_hide_that_the_source_says_no(bench: Bench) -> None:
    lay_down(bench.repo, COMMIT, LAID)
    bench.server.add_repo(NAME, FILES, gated="auto", gated_listing=True)
    assert bench.error().id == "key-missing"


# Keys.


@pytest.mark.parametrize(
    "spoil",
    [
        *(Status(code, body=f'{{"error": "bad {CANARY}"}}'.encode()) for code in (400, 401, 403, 404, 410, 429, 500)),
        Status(200, body=b"<html>"),
        Status(302, headers={"Location": "ftp://x/"}),
    ],
    ids=lambda fault: str(fault.code),
)
def test_the_token_is_never_shown(bench: Bench, spoil: Status) -> None:
    bench.server.add_repo(NAME, FILES, token=CANARY)
    source = bench.source(token=CANARY)
    manifest = source.resolve()
    bench.server.fail("/*", spoil)
    for action in (bench.source(token=CANARY).resolve, lambda: bench.read(source, manifest.files[1])):
        with pytest.raises(Exception) as caught:
            action()
        assert CANARY not in texts(caught.value)
    assert CANARY not in repr(source) + repr(vars(source)) + repr(manifest)
    assert not [entry for entry in bench.server.requests() if CANARY in entry.target]


def test_the_token_goes_to_the_endpoint_alone(bench: Bench) -> None:
    bench.server.add_repo(NAME, FILES, token=CANARY, private=True)
    source = bench.source(token=CANARY)
    for file in source.resolve().files:
        bench.read(source, file)
    assert bench.server.knows(CANARY, listener="hub")
    assert bench.server.requests(listener="cdn")
    assert not bench.server.knows(CANARY, listener="cdn")


@pytest.mark.parametrize("token", [f"{CANARY}\nsecond", f'"{CANARY}"', f"{CANARY} x", f"{CANARY}é"])
def test_a_token_that_no_header_can_hold_is_refused_unseen(bench: Bench, token: str) -> None:
    error = bench.error(token=token)
    assert error.id == "key-refused" and CANARY not in texts(error)
    assert not bench.server.requests()


# Addresses.


@pytest.mark.parametrize(
    "uri",
    ["hf://", "hf://name", "hf://../..", "hf://a/b/c", "hf://a/..:..", "hf://a/b:../x", "hf://a/b:x/../y", "hf://a/b:",
     "hf://a--b/c", "hf://a/b:x//y", "hf://a/b?revision=x", "hf://a/b?file=", "hf://a/b: x", "hf://[a/b", "a/b"],
)  # fmt: skip
def test_what_is_no_address_is_refused(bench: Bench, uri: str) -> None:
    assert bench.error(uri).id == "weights-source-unsupported"


def test_a_password_in_an_address_is_not_shown(bench: Bench) -> None:
    assert "secret" not in texts(bench.error("hf://user:secret@org/name"))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab/.:@?=%#-\\\x00\n é", max_size=30))
def test_no_address_leaves_the_cache(tail: str) -> None:
    paths = CachePaths(Path("/cache"))
    client = http.Client(offline=True)
    try:
        source = hub.parse(f"hf://org/{tail}", Opening(paths, Access(), client))
    except NimctlError as error:
        assert error.id == "weights-source-unsupported"
    else:
        assert paths.repo(source.repo).folder.parent == paths.hub
        for name in source.refs:
            assert ".." not in paths.repo(source.repo).ref(name).parts


def test_a_snapshot_given_as_a_folder_is_refused_because_its_links_lead_out(bench: Bench, tmp_path: Path) -> None:
    lay_down(bench.repo, COMMIT, LAID)
    with pytest.raises(NimctlError) as caught:
        require_no_links_outside(bench.repo.snapshot(COMMIT))
    assert caught.value.id == "weights-unreadable" and "cp -rL" in caught.value.fix
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a").touch()
    (plain / "b").symlink_to("a")
    require_no_links_outside(plain)  # a link inside is seen as well as a file
