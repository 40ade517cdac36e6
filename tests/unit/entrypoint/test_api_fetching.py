"""One picture from the network: what is connected to, and how each way of the other end to misbehave ends."""

import asyncio
import gc
import http.server
import importlib.util
import ipaddress
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from entrypoint.api import addresses, connector
from entrypoint.api.addresses import Allowed
from entrypoint.api.fetching import Way, fetch
from entrypoint.api.refusals import RefusedError
from tests.lib.pictures import PNG_HEAD, gif_head, jpeg_head, png_head

HOME = Allowed.read(["127.0.0.1", "pictures.example"])
LARGE = PNG_HEAD + bytes(300_000)


@contextmanager
def serving(handle):
    """A server on loopback for which `handle(request)` answers; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            handle(self)

        def do_CONNECT(self):
            handle(self)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def answer(body=PNG_HEAD, status=200, kind="image/png", length=True, **headers):
    def handle(request):
        request.send_response(status)
        request.send_header("Content-Type", kind)
        if length:
            request.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return handle


@pytest.mark.parametrize("body", [PNG_HEAD, gif_head(9, 9), jpeg_head(9, 9), LARGE])
@pytest.mark.parametrize("length", [True, False])
def test_a_picture_arrives_whole(body, length):
    with serving(answer(body, length=length)) as port:
        assert fetch(f"http://127.0.0.1:{port}/a.png?x=1", Way(HOME), 10) == body


@pytest.mark.parametrize(
    ("handle", "why"),
    [
        (answer(status=302, Location="http://169.254.169.254/"), "redirects, which is not followed"),
        (answer(status=404), "answers 404"), (answer(status=500), "answers 500"),
        (answer(b"<html>", kind="text/html"), "no picture in the formats"),
        (answer(b"RIFF\0\0\0\0WEBPVP8 ", kind="image/webp"), "no picture in the formats"),
        (answer(b"\0\0\0\x1cftypavif", kind="application/octet-stream"), "no picture in the formats"),
        (answer(b"", kind="image/png"), "no picture in the formats"),
        (answer(png_head(100_000, 100_000)), "100000 x 100000 pixels"),
        (answer(gif_head(1, 1, (60_000, 60_000))), "60000 x 60000 pixels"),
        (answer(jpeg_head(65_000, 65_000, before=200_000)), "65000 x 65000 pixels"),
        (answer(LARGE), "larger than 200000 bytes"), (answer(LARGE, length=False), "larger than 200000 bytes"),
        (answer(Content_Encoding="gzip"), "compressed"),
        (answer(length=False, Content_Length="99"), "stopped after 33"),
    ],
)  # fmt: skip
def test_what_else_may_come(handle, why):
    with serving(handle) as port, pytest.raises(RefusedError, match=why):
        fetch(f"http://127.0.0.1:{port}/", Way(HOME, largest=200_000 if "larger" in why else 10**6), 10)


def test_films_and_sounds_pass_by_their_kind():
    for body, kind in ((b"abc", "video/mp4"), (b"\0\0\0\x1cftypisom", ""), (b"OggS....", "binary/octet-stream")):
        with serving(answer(body, kind=kind)) as port:
            assert fetch(f"http://127.0.0.1:{port}/", Way(HOME), 10) == body


def endless_headers(request):
    with pytest.raises(OSError):
        for _ in range(100_000):
            request.wfile.write(b"X: y\r\n" if _ else b"HTTP/1.1 200 OK\r\n")
            time.sleep(0.02)


def endless_body(request):
    request.send_response(200)
    request.send_header("Content-Type", "image/png")
    request.end_headers()
    with pytest.raises(OSError):
        for _ in range(100_000):
            request.wfile.write(PNG_HEAD)
            time.sleep(0.01)


@pytest.mark.parametrize("handle", [endless_headers, endless_body])
def test_a_slow_other_end_is_left_at_the_deadline(handle):
    with serving(handle) as port, pytest.raises(RefusedError, match=r"within 0\.3 seconds"):
        fetch(f"http://127.0.0.1:{port}/", Way(HOME), 0.3)


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(RefusedError, match="ConnectionRefusedError"):
            fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/", Way(HOME), 5)


def test_the_connection_goes_to_the_address_that_was_judged(monkeypatch):
    """A name that is public when it is judged and private when it is asked for again."""
    asked = []

    def rebinding(host, port, *_, **__):
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    reached = []

    def connect(address, timeout):
        reached.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(RefusedError, match="ConnectionRefusedError"):
        fetch("http://rebinding.example/", Way(Allowed()), 5)
    assert (asked, reached) == (["rebinding.example"], [("93.184.216.34", 80)])


def test_the_next_address_is_tried(monkeypatch):
    home = ipaddress.IPv4Address("127.0.0.1")
    monkeypatch.setattr(addresses, "addresses_of", lambda *_: (ipaddress.IPv6Address("::2"), home))
    with serving(answer()) as port:
        assert fetch(f"http://pictures.example:{port}/", Way(HOME), 10) == PNG_HEAD


@pytest.mark.parametrize(("named", "told"), [(False, "93.184.216.34:443"), (True, "pictures.example:443")])
def test_a_proxy_resolves_only_what_the_operator_named(monkeypatch, named, told):
    seen = []

    def proxy(request):
        seen.append((request.path, request.headers["Proxy-Authorization"]))
        request.send_response(403)
        request.end_headers()

    public = (ipaddress.IPv4Address("93.184.216.34"),)
    monkeypatch.setattr(addresses, "addresses_of", lambda *_: public)
    with serving(proxy) as port, pytest.raises(RefusedError, match="the proxy answers 403"):
        way = Way(HOME if named else Allowed(), proxies={"https": f"http://me:p%40ss@127.0.0.1:{port}"})
        fetch("https://pictures.example/", way, 10)
    assert seen == [(told, "Basic bWU6cEBzcw==")]


def test_no_proxy_is_heeded_and_private_hosts_are_refused_with_a_proxy():
    proxies = {"http": "http://127.0.0.1:9", "no": "other.example, 127.0.0.1"}
    with serving(answer()) as port:
        assert fetch(f"http://127.0.0.1:{port}/", Way(HOME, proxies=proxies), 10) == PNG_HEAD
    with pytest.raises(RefusedError, match="not a public address"):
        fetch("http://10.0.0.1/", Way(Allowed(), proxies=proxies), 10)
    with pytest.raises(RefusedError, match="not an http:// address"):
        fetch("http://pictures.example/", Way(HOME, proxies={"http": "socks5://127.0.0.1:1"}), 10)


class Engine(ModuleType):
    """What the engine's module of connectors offers."""

    class VLLMValidationError(Exception):
        def __init__(self, text, parameter):
            super().__init__(text)
            self.parameter = parameter

    class MediaConnector:
        def __init__(self, media_io_kwargs=None, connection=None, **more):
            self.media_io_kwargs, self.connection, self.more = media_io_kwargs, connection, more


class Registry(dict):
    def register(self, name):
        return lambda made: self.setdefault(name, made)


def test_the_engine_gets_our_connection(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert not connector.install({}, HOME, 100)
    engine = Engine(connector.MODULE)
    engine.MEDIA_CONNECTOR_REGISTRY = Registry()
    assert connector.install({connector.MODULE: engine}, HOME, 100)
    made = engine.MEDIA_CONNECTOR_REGISTRY["nimctl"](media_io_kwargs={"a": 1}, allowed_local_media_path="")
    assert (made.media_io_kwargs, made.more) == ({"a": 1}, {"allowed_local_media_path": ""})
    with serving(answer()) as port:
        url = f"http://127.0.0.1:{port}/"
        assert made.connection.get_bytes(url, timeout=5, allow_redirects=True, max_bytes=None) == PNG_HEAD
        assert asyncio.run(made.connection.async_get_bytes(url, timeout=5, max_bytes=None)) == PNG_HEAD
    with pytest.raises(Engine.VLLMValidationError, match="does not name it") as refused:
        asyncio.run(made.connection.async_get_bytes("http://10.0.0.1/"))
    assert refused.value.parameter == "image_url"


def test_a_resolver_that_hangs_does_not_hold_the_request(monkeypatch):
    freed = threading.Event()
    monkeypatch.setattr(connector, "_seconds", lambda _: -0.9)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: freed.wait(30) and [])
    guarded = connector.GuardedConnection(Allowed(), 100, ValueError)
    try:
        with pytest.raises(ValueError, match="in time"):
            asyncio.run(asyncio.wait_for(guarded.async_get_bytes("http://slow.example/"), 20))
    finally:
        freed.set()


def test_a_slow_host_holds_no_more_than_its_share(monkeypatch):
    freed, begun = threading.Event(), []

    def slow(url, *_):
        begun.append(url)
        if "slow" in url:
            assert freed.wait(30)
        return url.encode()

    async def ask(guarded):
        asked = [asyncio.create_task(guarded.async_get_bytes(f"http://slow.example/{i}")) for i in range(100)]
        await asyncio.sleep(0)  # all are waiting before the other host is asked
        assert await guarded.async_get_bytes("http://other.example/") == b"http://other.example/"
        assert len(begun) <= 8 + 1
        asked[-1].cancel()
        monkeypatch.setattr(connector, "_seconds", lambda _: 0.01)
        with pytest.raises(ValueError, match=r"slow\.example: too many"):
            await guarded.async_get_bytes("http://slow.example/late")
        freed.set()
        assert len(set(await asyncio.gather(*asked[:-1]))) == 99
        return await guarded.async_get_bytes("http://slow.example/again")

    monkeypatch.setattr(connector, "_seconds", lambda _: 20)
    monkeypatch.setattr(connector, "fetch", slow)
    guarded = connector.GuardedConnection(Allowed(), 100, ValueError)
    assert asyncio.run(ask(guarded)) == b"http://slow.example/again"
    gc.collect()
    assert not guarded._hosts  # a host that nobody asks for is forgotten


def test_the_real_engine_still_has_what_we_take_the_place_of():
    """Read as text: importing it takes half a minute."""
    spec = importlib.util.find_spec("vllm")
    if spec is None:
        pytest.skip("the engine is not installed")
    text = Path(spec.origin).with_name("multimodal").joinpath("media/connector.py").read_text(encoding="utf-8")
    for needed in (
        "MEDIA_CONNECTOR_REGISTRY = ExtensionManager()", "import VLLMUnprocessableEntityError, VLLMValidationError",
        "await connection.async_get_bytes(", "connection: HTTPConnection = global_http_connection",
        "if isinstance(exc, VLLMValidationError):\n        return exc",
    ):  # fmt: skip
        assert needed in text, needed
