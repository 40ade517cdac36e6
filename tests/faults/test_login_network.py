"""Fault: the registry or its token service is unreachable, silent, or talks nonsense."""

import json
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.registry import transport
from nimctl.registry.credentials import login
from tests.lib.little_registry import TOKEN, USER, Answer, little_registry
from tests.unit.entrypoint.certificates import Authority


@pytest.fixture
def registry():
    with little_registry() as running:
        yield running


def failure(address: str, folder, key: str = "nvapi-canary-0123456789") -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        login(address, USER, Secret(key), config_dir=folder)
    assert (caught.value.id, caught.value.exit_code) == ("image-pull-failed", 5)
    assert list(folder.iterdir()) == [], "nothing is stored for a key that was not proved"
    return caught.value


def test_nobody_listens(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    error = failure(f"127.0.0.1:{port}", tmp_path)
    assert "refused" in error.cause
    assert f"127.0.0.1:{port}" in error.message


def test_a_name_that_does_not_exist_and_the_proxy_that_was_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:proxy-canary@127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    error = failure("registry.invalid", tmp_path)
    assert "through the proxy 127.0.0.1:1" in error.cause
    assert "proxy-canary" not in str(error.to_json())
    monkeypatch.setenv("NO_PROXY", "*")
    assert "proxy" not in failure("registry.invalid", tmp_path).cause


def test_a_proxy_is_never_used_for_this_machine(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert login(registry.address, USER, Secret(registry.key), config_dir=tmp_path).plaintext


@pytest.mark.parametrize("place", ["token", "second ping"])
def test_silence_ends_in_an_error(registry, tmp_path, monkeypatch, place):
    monkeypatch.setattr(transport, "TIMEOUT", 0.2)
    hang = Answer(hang=True)
    if place == "token":
        registry.token = lambda _: hang
    else:
        registry.ping = lambda r: hang if r.authorization else registry.good_ping(r)
    error = failure(registry.address, tmp_path, registry.key)
    assert "did not answer in time" in error.cause


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"token": 5}',
        b'{"token": ""}',
        b"\xff\xfe",
        b'{"token": "a\\r\\nX: b"}',
    ],
)
def test_a_token_service_that_gives_no_token(registry, tmp_path, body):
    registry.token = lambda _: Answer(200, body)
    assert "token" in failure(registry.address, tmp_path, registry.key).message


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_token_service_that_is_out_of_order(registry, tmp_path, status):
    registry.token = lambda _: Answer(status, b"<b>sorry</b>")
    error = failure(registry.address, tmp_path, registry.key)
    assert error.evidence == (f"{registry.address} answered {status}: sorry",)


def test_an_answer_without_end(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "MAX_BODY", 1000)
    registry.token = lambda _: Answer(200, json.dumps({"token": TOKEN, "x": "y" * 2000}).encode())
    assert "larger than" in failure(registry.address, tmp_path, registry.key).cause


@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_web_server_that_is_no_registry(registry, tmp_path, status):
    registry.ping = lambda _: Answer(401 if status == 200 else status, b"<html>welcome</html>")
    failure(registry.address, tmp_path, registry.key)


@pytest.mark.parametrize("realm", ["http://192.0.2.1/token", "ftp://127.0.0.1/token", "/token"])
def test_the_key_is_not_sent_unencrypted_to_another_machine(registry, tmp_path, realm):
    registry.challenge = f'Bearer realm="{realm}"'
    assert "unencrypted" in failure(registry.address, tmp_path, registry.key).message
    assert all(r.authorization is None for r in registry.seen)


def test_a_registry_elsewhere_is_never_asked_over_plain_http(registry, tmp_path, monkeypatch):
    """The host name leads to the plain registry on loopback, but is not a loopback name."""
    real = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda address, *a, **k: real(("127.0.0.1", address[1]), *a, **k))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    failure(f"registry.invalid:{registry.port}", tmp_path, registry.key)
    assert registry.seen == []


def test_garbage_instead_of_http(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            for _ in range(2):  # http, then https
                connection, _ = server.accept()
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
                connection.close()

        thread = threading.Thread(target=talk)
        thread.start()
        failure(f"127.0.0.1:{server.getsockname()[1]}", tmp_path)
        thread.join()


class _Ping(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def tls_server(certificate, key, ping=_Ping):
    """The port of a registry on loopback behind this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Quiet(HTTPServer):
        def handle_error(self, *_):
            """A client that does not trust us hangs up: that is the test."""

    server = Quiet(("127.0.0.1", 0), ping)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def private_tls(tmp_path_factory):
    """A registry on loopback behind a certificate of its own CA: port and CA file."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += [
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(folder / "key"),
        "-out",
        str(folder / "ca.crt"),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with tls_server(folder / "ca.crt", folder / "key") as port:
        yield port, folder / "ca.crt"


def test_a_private_ca_is_refused_until_it_is_named(private_tls, tmp_path, monkeypatch):
    port, ca = private_tls
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    error = failure(f"localhost:{port}", tmp_path)
    assert "certificate is not trusted" in error.cause
    assert "SSL_CERT_FILE" in error.fix
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing"))
    assert "cannot be read" in failure(f"localhost:{port}", tmp_path).cause
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca))
    assert login(f"localhost:{port}", USER, Secret("nvapi-x"), config_dir=tmp_path).plaintext


@pytest.mark.parametrize("days_ahead", [20, 0])
def test_a_certificate_that_counts_as_expired_is_a_wrong_clock_where_the_registry_has_another_time(
    tmp_path, monkeypatch, days_ahead
):
    class Past(_Ping):
        def do_HEAD(self):
            self.do_GET()

        def date_time_string(self, timestamp=None):
            return format_datetime(datetime.now(UTC) - timedelta(days=days_ahead), usegmt=True)

    authority, stores = Authority(tmp_path), tmp_path / "docker"
    stores.mkdir()
    key, certificate = authority.issue("server", days=-10)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with tls_server(certificate, key, Past) as port, pytest.raises(NimctlError) as caught:
        login(f"localhost:{port}", USER, Secret("nvapi-canary-0123456789"), config_dir=stores)
    error = caught.value
    assert error.id == ("clock-wrong" if days_ahead else "image-pull-failed")
    assert "expired" in f"{error.message} {error.cause}"
    if days_ahead:
        both = (datetime.now(UTC), datetime.now(UTC) - timedelta(days=days_ahead))
        assert all(f"{when:%Y-%m-%d}" in error.cause for when in both)
        assert "timedatectl" in error.fix
    assert list(stores.iterdir()) == []
