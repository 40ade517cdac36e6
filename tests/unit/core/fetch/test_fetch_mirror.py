"""`https://`: folders on a real nginx, with and without a listing, and on servers that know less than it does."""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import http, store
from nimctl.core.fetch.access import Access
from nimctl.core.fetch.protocol import RangeIgnored, Remote
from nimctl.core.fetch.retry import Patience
from nimctl.core.fetch.sources import checksums, mirror, mirror_pages, objectstore
from nimctl.core.fetch.sources.opening import Opening
from nimctl.core.secret import Secret
from tests.lib.checkpoints import safetensors
from tests.lib.fault_hub import ForwardProxy
from tests.lib.fault_hub.certificates import make_certificates
from tests.lib.reading import error_of, file_of, read_stream

AT_ONCE = Patience(attempts=2, first=0.0, longest=0.0)
WEIGHTS = safetensors(50_000)[:-50_000] + bytes(n * 7 % 251 for n in range(50_000))
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "sub folder/a+b#c%41ü.json": b"[]", "README.md": b"#"}
NAMES = ["config.json", "model.safetensors", "sub folder/a+b#c%41ü.json"]
PASSWORD = "canary/p@ss:word"
NGINX = """
daemon off; master_process off; error_log stderr crit; pid {root}/pid;
events {{}}
http {{
  access_log {root}/access.log; default_type application/octet-stream;
  types {{ text/html html; application/json json; }}
  client_body_temp_path {root}/t; proxy_temp_path {root}/t; fastcgi_temp_path {root}/t; uwsgi_temp_path {root}/t;
  scgi_temp_path {root}/t;
  server {{
    listen 127.0.0.1:{port};
    location /listed/ {{ alias {root}/www/; autoindex on; }}
    location /bare/ {{ alias {root}/www/; }}
    location /dateless/ {{ alias {root}/www/; autoindex on; etag off; add_header Last-Modified ""; }}
    location /locked/ {{ alias {root}/www/; autoindex on; auth_basic x; auth_basic_user_file {root}/users; }}
    location /portal/ {{ types {{ }} default_type text/html;
                         return 200 "<html><a href='about.html'>log in</a></html>"; }}
    location /headless/ {{ alias {root}/www/; limit_except GET {{ deny all; }} autoindex on;
                           if ($request_method = HEAD) {{ return 405; }} }}
  }}
}}
"""


class Site:
    """An nginx with the folder `www` under several addresses, a cache, and the sources made of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.www, self.paths = root, root / "www", CachePaths(root / "cache")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.client = http.Client(timeouts=http.Timeouts(5, 5))

    def put(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            (self.www / name).parent.mkdir(parents=True, exist_ok=True)
            (self.www / name).write_bytes(content)

    def source(self, place: str = "listed", *, user: str = "", query: str = "", **options: Any) -> mirror.MirrorSource:
        uri = f"http://{user}127.0.0.1:{self.port}/{place}{query}"
        access = Access(offline=options.pop("offline", False))
        client = http.Client(offline=True) if access.offline else self.client
        return mirror.parse(uri, Opening(self.paths, access, client, patience=AT_ONCE, **options))

    def asked(self) -> list[str]:
        """The paths of all requests so far. nginx logs in order, and after it has answered."""
        self.client.get(f"http://127.0.0.1:{self.port}/end-of-log")
        deadline = time.monotonic() + 20
        while "/end-of-log" not in (log := (self.root / "access.log").read_text()):
            assert time.monotonic() < deadline
        return [line.split('"')[1].split()[1] for line in log.splitlines()][:-1]

    def fetch(self, source: mirror.MirrorSource) -> Path:
        return store.ensure(source, source.resolve(), self.paths, lambda _: None, patience=AT_ONCE)


def _opening(cache: Path, access: Access | None = None) -> Opening:
    return Opening(CachePaths(cache), access or Access(), http.Client(), patience=AT_ONCE)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.www.mkdir()
    salted = base64.b64encode(hashlib.sha1(PASSWORD.encode() + b"salt").digest() + b"salt").decode()
    (tmp_path / "users").write_text(f"me:{{SSHA}}{salted}\n")
    (tmp_path / "nginx.conf").write_text(
        "user root;\n" * (os.geteuid() == 0) + NGINX.format(root=tmp_path, port=site.port)
    )
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin:" + os.environ["PATH"])
    assert binary, "nginx is needed, as the entrypoint needs it"
    child = subprocess.Popen(
        [binary, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            assert child.poll() is None
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", site.port), 1):
                break
        yield site
    finally:
        child.terminate()
        child.wait(20)
        site.client.close()


def _error(action: Callable[[], object]) -> NimctlError:
    return error_of(action, "canary")


def _sums(names: list[str]) -> bytes:
    return "".join(f"{hashlib.sha256(FILES[name]).hexdigest()} *{name}\n" for name in names).encode()


def _digest(name: str) -> str:
    return f"sha256:{hashlib.sha256(FILES[name]).hexdigest()}"


@pytest.mark.parametrize("place", ["listed", "listed/", "dateless", "headless"])
def test_a_folder_that_lists_itself(site: Site, place: str) -> None:
    site.put({**FILES, "pytorch_model.bin": b"x"})
    source = site.source(place)
    assert isinstance(source, Remote)
    manifest = source.resolve()
    assert [(file.path, file.size) for file in manifest.files] == [(name, len(FILES[name])) for name in NAMES]
    snapshot = site.fetch(source)
    assert {name: (snapshot / name).read_bytes() for name in NAMES} == {name: FILES[name] for name in NAMES}
    again = site.source(place, offline=True).resolve()
    assert again.revision == manifest.revision
    assert file_of(again, "model.safetensors").digest == _digest("model.safetensors")


def test_a_folder_without_listing_is_found_by_its_index(site: Site) -> None:
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    site.put({"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode(),
              "model-00001-of-00001.safetensors": WEIGHTS, "tokenizer.json": b"{}", "odd.json": b"{}"})  # fmt: skip
    names = {"config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json", "tokenizer.json"}
    assert {file.path for file in site.source("bare").resolve().files} == names
    (site.www / "model-00001-of-00001.safetensors").unlink()
    assert _error(site.source("bare").resolve).id == "weights-not-found"
    site.put({"model.safetensors.index.json": b"[]"})
    assert _error(site.source("bare").resolve).id == "weights-source-failed"


def test_one_weight_file_without_index_or_listing(site: Site) -> None:
    site.put({"config.json": b"{}", "model.safetensors": WEIGHTS})
    assert {file.path for file in site.source("bare").resolve().files} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("place", ["listed", "bare"])
def test_sums_give_digests_and_names(site: Site, place: str) -> None:
    site.put({**FILES, "SHA256SUMS": _sums(NAMES)})
    manifest = site.source(place).resolve()
    assert {file.path: file.digest for file in manifest.files} == {name: _digest(name) for name in NAMES}
    site.put({"model.safetensors": bytes(len(WEIGHTS))})
    assert _error(lambda: site.fetch(site.source(place))).id == "weights-corrupt"
    site.put({"SHA256SUMS": b"x  y\n"})
    assert _error(site.source(place).resolve).id == "weights-source-failed"
    site.put({"SHA256SUMS": b"a" * 64 + b"  ../evil\n"})
    assert _error(site.source(place).resolve).id == "weights-unsafe-name"


def test_a_manifest_is_enough(site: Site) -> None:
    files = [{"path": name, "size": len(FILES[name]), "digest": _digest(name)} for name in NAMES[:2]]
    document = {"schema": "nimctl.manifest/1", "source": "x", "revision": "x", "files": files}
    site.put({**FILES, checksums.MANIFEST: json.dumps(document).encode()})
    manifest = site.source("bare").resolve()
    assert [file.path for file in manifest.files] == NAMES[:2]
    assert site.asked() == ["/bare/nimctl.manifest.json"]
    assert (site.fetch(site.source("bare")) / "model.safetensors").read_bytes() == WEIGHTS
    (site.www / "model.safetensors").unlink()
    assert (
        _error(lambda: read_stream(site.source("bare", refresh=True).open_range(manifest.files[1], 0, 9))).id
        == "weights-not-found"
    )


def test_revisions_follow_the_content(site: Site) -> None:
    site.put(FILES)
    first = site.source().resolve()
    site.put({"README.md": b"# another"})
    assert site.source().resolve().revision == first.revision
    site.fetch(site.source())
    site.put({"config.json": b"[]"})
    os.utime(site.www / "config.json", (1, 1))
    assert site.source().resolve().revision == first.revision
    assert site.source(refresh=True).resolve().revision != first.revision
    assert (site.fetch(site.source(refresh=True)) / "config.json").read_bytes() == b"[]"


def test_a_file_that_changes_meanwhile_is_an_error_and_never_a_mix(site: Site) -> None:
    site.put(FILES)
    source = site.source()
    weights = file_of(source.resolve(), "model.safetensors")
    assert read_stream(source.open_range(weights, 0, 10)) == WEIGHTS[:10]
    site.put({"model.safetensors": bytes(len(WEIGHTS))})
    os.utime(site.www / "model.safetensors", (1, 1))
    error = _error(lambda: source.open_range(weights, 10, 20))
    assert error.id == "weights-source-failed"
    assert "changed" in error.message


def test_without_etag_date_and_digest_a_file_is_read_in_one_piece(site: Site) -> None:
    site.put(FILES)
    source = site.source("dateless")
    weights = file_of(source.resolve(), "model.safetensors")
    with pytest.raises(RangeIgnored):
        source.open_range(weights, 0, 10)
    assert read_stream(source.open_range(weights, 0, len(WEIGHTS))) == WEIGHTS


def test_user_and_password(site: Site) -> None:
    site.put(FILES)
    source = site.source("locked", user="me:canary%2Fp%40ss%3Aword@")
    assert "canary" not in repr(source) + source.repo + source.resolve().source
    assert (site.fetch(source) / "model.safetensors").read_bytes() == WEIGHTS
    assert _error(site.source("locked", refresh=True).resolve).id == "key-missing"
    assert _error(site.source("locked", user="me:canary@", refresh=True).resolve).id == "key-refused"
    assert source.repo == site.source("locked").repo


def test_what_is_not_there(site: Site) -> None:
    assert _error(site.source("absent").resolve).id == "weights-not-found"
    assert _error(site.source("portal").resolve).id == "weights-missing"
    assert _error(site.source(offline=True).resolve).id == "weights-offline"
    site.put({"config.json": b"{}", "pytorch_model.bin": b"x"})
    assert _error(site.source().resolve).id == "weights-pickle"
    (site.www / "pytorch_model.bin").unlink()
    assert _error(site.source("bare").resolve).id == "weights-missing"
    for path in site.www.iterdir():
        path.unlink()
    assert _error(site.source("bare").resolve).id in ("weights-not-found", "key-missing")


def test_single_files(site: Site) -> None:
    site.put(FILES)
    manifest = site.source("bare", query="?file=README.md").resolve()
    assert [(file.path, file.size) for file in manifest.files] == [("README.md", 1)]
    assert _error(site.source("bare", query="?file=absent.json").resolve).id == "weights-not-found"
    assert _error(site.source("bare", query="?file=../absent.json").resolve).id == "weights-unsafe-name"


@pytest.mark.parametrize(
    "uri", ["https://", "https://h:canary/x", "https://u:canary/x@h/y", "https://h/#canary", "https://h/?token=canary"]
)
def test_addresses_that_are_none(tmp_path: Path, uri: str) -> None:
    error = _error(lambda: mirror.parse(uri, _opening(tmp_path)))
    assert error.id == "weights-source-unsupported"


PAGES = {
    "nginx": (
        '<a href="../">../</a><a href="a%20b.json">a b.json</a> 1 2<a href="sub/">sub/</a>',
        ["a b.json"],
        ["sub"],
    ),
    "apache": ('<th><a href="?C=N;O=D">Name</a></th><a href="/x/">Parent</a><a HREF=\'a.json\'>a</a>', ["a.json"], []),
    "absolute": ('<a href="/x/m/a.json">a</a><a href="http://h/x/m/b.json">b</a>', ["a.json", "b.json"], []),
    "foreign": ('<a href="http://other/x/m/a.json">a</a><a href="https://h/x/m/a">a</a><a href="//[">a</a>', [], []),
    "above": ('<a href="/x/a.json">a</a><a href="../../a">a</a><a href=".">a</a><a href="sub/a.json">a</a>', [], []),
    "hidden": ('<a href="%2e%2e%2fevil.json">a</a>', ["../evil.json"], []),
}


@pytest.mark.parametrize(("page", "files", "folders"), PAGES.values(), ids=PAGES.keys())
def test_links_of_a_page(page: str, files: list[str], folders: list[str]) -> None:
    assert mirror_pages.entries(page, "http://h/x/m/") == (files, folders)


class _Evil(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'<a href="%2e%2e%2fevil.safetensors">x</a>' if self.path == "/m/" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _serving(handler: type[BaseHTTPRequestHandler]) -> contextlib.AbstractContextManager[str]:
    @contextlib.contextmanager
    def serving() -> Iterator[str]:
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            yield f"127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()

    return serving()


def test_a_listing_cannot_name_a_file_outside(tmp_path: Path) -> None:
    with _serving(_Evil) as host, contextlib.closing(http.Client()) as client:
        source = mirror.parse(f"http://{host}/m", Opening(CachePaths(tmp_path), Access(), client, patience=AT_ONCE))
        assert _error(source.resolve).id == "weights-unsafe-name"


# TLS and proxies, for both kinds of source: requests and the object store library each read them in their own way.


class _Tls:
    """A TLS server that answers 404, with a certificate under a CA that nobody knows yet."""

    def __init__(self, folder: Path, *, expired: bool) -> None:
        now = datetime.now(UTC)
        valid = (now - timedelta(days=9), now - timedelta(days=2)) if expired else None
        self.certificates = make_certificates(folder, ("127.0.0.1",), valid=valid)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Evil)
        self.server.socket = self.certificates.server_context().wrap_socket(self.server.socket, server_side=True)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


Make = Callable[[str, Path], Remote]


def _s3(url: str, cache: Path) -> Remote:
    access = Access(object_store={"AWS_ENDPOINT_URL": Secret(url), "AWS_SKIP_SIGNATURE": Secret("true")})
    return objectstore.parse("s3://bucket/m", _opening(cache, access))


def _https(url: str, cache: Path) -> Remote:
    return mirror.parse(f"{url}/m", _opening(cache))


@pytest.mark.parametrize("make", [_s3, _https])
@pytest.mark.parametrize(("expired", "expected"), [(False, "tls-untrusted"), (True, "clock-wrong")])
def test_certificates(
    tmp_path: Path, make: Make, expired: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(_Tls(tmp_path, expired=expired)) as server:
        if expired:
            monkeypatch.setenv("SSL_CERT_FILE", str(server.certificates.ca_file))
        assert _error(make(server.url, tmp_path / "cache").resolve).id == expected
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificates.ca_file))
        if not expired:
            found = _error(make(server.url, tmp_path / "cache").resolve)
            assert found.id in ("weights-not-found", "weights-unsafe-name", "weights-source-failed"), "it was reached"


@pytest.mark.parametrize("make", [_s3, _https])
@pytest.mark.parametrize("mode", ["refuses", "credentials"])
def test_a_proxy_that_refuses(tmp_path: Path, make: Make, mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy(mode) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert _error(make("https://weights.invalid", tmp_path).resolve).id == "proxy-refused"


@pytest.mark.parametrize("make", [_s3, _https])
def test_a_bundle_that_is_no_certificate(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundle.pem").write_text("nothing")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bundle.pem"))
    with contextlib.closing(_Tls(tmp_path, expired=False)) as server:
        assert _error(make(server.url, tmp_path / "cache").resolve).id in ("tls-untrusted", "config-invalid")
