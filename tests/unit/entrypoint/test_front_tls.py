"""TLS on the public port: what is refused before nginx starts, who gets in, and certificates that are renewed."""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys

import pytest

from entrypoint.front import Tls, front_of, tls
from entrypoint.front.renewal import Renewal
from entrypoint.settings import read
from entrypoint.state import State
from entrypoint.unixhttp import get_tcp, post_tcp
from nimctl.core.errors import NimctlError
from nimctl.core.stages import StartupReport
from nimctl.launch.progress import ask
from nimctl.launch.runtime import RunHandle
from tests.unit.entrypoint.certificates import Authority
from tests.unit.entrypoint.front_lab import TOKEN, lab
from tests.unit.entrypoint.service import free_port, needs_nginx, service, until


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def refusal(asked: Tls) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        tls.check(asked)
    assert caught.value.id == "config-invalid"
    return caught.value


def test_good_files_pass(authority):
    key, certificate = authority.issue("server")
    tls.check(Tls(key, certificate))
    tls.check(Tls(key, certificate, authority.file))


def test_each_wrong_file_is_named_with_its_cause(authority, tmp_path):
    key, certificate = authority.issue("server")
    other_key, _ = authority.issue("other")
    locked_key, locked = authority.issue("locked", password=b"secret")
    old_key, old = authority.issue("old", days=-1)
    empty = tmp_path / "empty"
    empty.write_text("")
    nowhere = tmp_path / "nowhere"
    cases = {
        Tls(nowhere, certificate): ("NIM_SSL_KEY_PATH", "No such file"),
        Tls(key, nowhere): ("NIM_SSL_CERTS_PATH", "No such file"),
        Tls(tmp_path, certificate): ("NIM_SSL_KEY_PATH", "Is a directory"),
        Tls(other_key, certificate): ("NIM_SSL_KEY_PATH", "not the key of the certificate"),
        Tls(locked_key, locked): ("NIM_SSL_KEY_PATH", "encrypted"),
        Tls(old_key, old): ("NIM_SSL_CERTS_PATH", "expired"),
        Tls(empty, certificate): ("NIM_SSL_KEY_PATH", "no PEM"),
        Tls(key, empty): ("NIM_SSL_CERTS_PATH", "no PEM"),
        Tls(key, certificate, empty): ("NIM_SSL_CA_CERTS_PATH", "no PEM"),
        Tls(key, certificate, nowhere): ("NIM_SSL_CA_CERTS_PATH", "No such file"),
    }
    for asked, (name, cause) in cases.items():
        error = refusal(asked)
        assert error.message.startswith(f"{name}=") and cause in error.cause, (asked, error.message, error.cause)


def settings(**environ: str):
    return read({"NIM_RECIPE": "demo", **environ}, [])


def test_a_mode_without_its_files_is_refused(tmp_path):
    for environ, missing in (
        ({"NIM_SSL_MODE": "TLS"}, "NIM_SSL_KEY_PATH"),
        ({"NIM_SSL_MODE": "tls", "NIM_SSL_KEY_PATH": "/k"}, "NIM_SSL_CERTS_PATH"),
        ({"NIM_SSL_MODE": "MTLS", "NIM_SSL_KEY_PATH": "/k", "NIM_SSL_CERTS_PATH": "/c"}, "NIM_SSL_CA_CERTS_PATH"),
    ):
        with pytest.raises(NimctlError, match=f"needs {missing}"):
            front_of(settings(**environ), State(tmp_path), TOKEN)
    assert front_of(settings(), State(tmp_path), TOKEN).tls is None


def test_a_health_port_that_could_not_be_without_tls_and_keys_is_refused(tmp_path):
    """NIM's own default for it is the public port, which is no contradiction as long as that is open too."""
    keys = tmp_path / "keys"
    keys.write_text("first-key-0123456789\n")
    files = {"NIM_SSL_KEY_PATH": "/k", "NIM_SSL_CERTS_PATH": "/c"}
    assert front_of(settings(NIM_HEALTH_PORT="8000"), State(tmp_path), TOKEN).health_port is None
    for guarded in ({"NIM_SSL_MODE": "TLS", **files}, {"NIM_API_KEYS_FILE": str(keys)}):
        with pytest.raises(NimctlError, match="config-invalid: NIM_HEALTH_PORT=8000 is the public port"):
            front_of(settings(NIM_HEALTH_PORT="8000", **guarded), State(tmp_path), TOKEN)
        assert front_of(settings(NIM_HEALTH_PORT="8001", **guarded), State(tmp_path), TOKEN).health_port == 8001
        assert front_of(settings(**guarded), State(tmp_path), TOKEN).health_port is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what is refused
@needs_nginx
def test_tls(authority):
    key, certificate = authority.issue("server")
    with lab(tls=Tls(key, certificate), context=authority.client()) as one:
        assert one.chat().status == 200
        assert ("X-Forwarded-Proto", "https") in one.asked[-1].headers
        plain = one.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert plain.startswith(b"HTTP/1.1 400 ") and b"This port speaks HTTPS" in plain
        old = ssl.create_default_context(cafile=str(authority.file))
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        one.context = old
        with pytest.raises(ssl.SSLError):
            one.get("/v1/models")


@needs_nginx
def test_mutual_tls_lets_in_whom_it_knows_and_shows_health_to_all(authority, tmp_path):
    key, certificate = authority.issue("server")
    (tmp_path / "x").mkdir()
    stranger = Authority(tmp_path / "x", "stranger").issue("client")
    asked = Tls(key, certificate, authority.file)
    with lab(tls=asked, context=authority.client(), health_port=free_port()) as one:
        refused = one.chat()
        assert (refused.status, refused.json["error"]["type"]) == (403, "PermissionDeniedError")
        assert one.get("/v1/models").status == one.get("/v1/metrics").status == one.get("/v1/version").status == 403
        assert one.get("/v1/health/ready").status == 200, "probes have no certificate"
        one.context = authority.client(stranger)
        for path in ("/v1/models", "/v1/metrics", "/v1/version", "/v1/responses/x"):
            foreign = one.get(path)
            assert foreign.status == 403 and "is not accepted" in foreign.json["error"]["message"], path
        assert one.chat().status == 403
        assert one.get("/v1/health/live").status == one.get("/v1/health/ready").status == 200, "nor one of ours"
        assert one.get("/nothing").status == 404
        one.context = authority.client(authority.issue("expired", days=-1))
        assert one.chat().status == 403
        assert one.asked == []
        one.context = authority.client(authority.issue("client"))
        assert one.chat().status == 200
        assert one.ask("GET", "/v1/health/live", port=one.front.health_port).status == 200, "without TLS"
        front = one.front
        assert get_tcp(front.client_host, front.port, "/v1/health/live").status == 200
        header = {"X-Nimctl-Warmup": TOKEN}
        assert post_tcp(front.client_host, front.port, "/v1/completions", {}, headers=header, timeout=5).status == 200
        assert one.state.public_socket.is_socket()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@needs_nginx
def test_a_foreign_certificate_stays_foreign_on_its_connection_and_when_its_session_goes_on(
    authority, tmp_path, version
):
    """Health first, so that a connection and a session are there which were not refused."""
    key, certificate = authority.issue("server")
    (tmp_path / "x").mkdir()
    stranger = Authority(tmp_path / "x", "stranger").issue("client")
    with lab(tls=Tls(key, certificate, authority.file), context=authority.client()) as one:
        for shown, expected in ((stranger, 403), (authority.issue("client"), 200)):
            context = authority.client(shown)
            context.minimum_version = context.maximum_version = version
            session = None
            for goes_on in (False, True):
                wire = context.wrap_socket(
                    socket.create_connection(("127.0.0.1", one.front.port), 20),
                    server_hostname="localhost",
                    session=session,
                )
                connection = http.client.HTTPSConnection("localhost", one.front.port)
                connection.sock = wire
                for path, status in (("/v1/health/live", 200), ("/v1/models", expected)):
                    assert wire.session_reused == goes_on
                    connection.request("GET", path)
                    answer = connection.getresponse()
                    session = wire.session  # TLS 1.3 brings it with the first answer
                    assert (answer.status, answer.read()[:1]) == (status, b"{")
                connection.close()


@needs_nginx
def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(authority):
    key, certificate = authority.issue("server")
    with lab(tls=Tls(key, certificate), context=authority.client()) as one:
        assert one.process is not None
        renewal = Renewal(one.front, one.state, one.process.pid, check_tls=tls.check)
        assert renewal.look() is None

        def serial() -> str:
            return ssl.get_server_certificate(("127.0.0.1", one.front.port))

        first = serial()
        certificate.write_text("nonsense")
        with pytest.raises(NimctlError, match="NIM_SSL_CERTS_PATH"):
            renewal.look()
        assert renewal.look() is None, "told once"
        assert serial() == first
        new_key, new = authority.issue("renewed")
        shutil.copy(new_key, key)
        shutil.copy(new, certificate)
        told = renewal.look()
        assert told is not None and str(certificate) in told
        until(lambda: serial() != first, 10)
        assert one.chat().status == 200


@needs_nginx
def test_a_front_that_cannot_have_its_tls_ends_before_nginx(tmp_path):
    environ = {
        "PATH": os.environ["PATH"],
        "NIM_RECIPE": "demo",
        "NIM_SERVER_HOST": "127.0.0.1",
        "NIM_SERVER_PORT": str(free_port()),
        "NIMCTL_STATE_DIR": str(tmp_path / "state"),
        "NIM_CACHE_PATH": str(tmp_path),
        "NIM_SSL_MODE": "TLS",
        "NIM_SSL_KEY_PATH": "/nowhere/key",
        "NIM_SSL_CERTS_PATH": "/nowhere/crt",
    }
    argv = [sys.executable, "-m", "entrypoint"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "error[config-invalid] NIM_SSL_KEY_PATH=/nowhere/key cannot be used" in done.stderr


@needs_nginx
def test_the_host_reads_health_through_tls(authority):
    """`nimctl run` and `nimctl status` have neither the authority nor a client certificate."""
    key, certificate = authority.issue("server")
    with lab(tls=Tls(key, certificate, authority.file), context=authority.client()) as one:
        (one.state.public / "startup.json").write_text(json.dumps(StartupReport("ready", (), "1").to_json()))
        run = RunHandle("x", "process", "1", "ours", "demo", "127.0.0.1", one.front.port)
        assert ask(run, 5.0).ready


@needs_nginx
def test_a_server_with_everything_becomes_ready_and_renews_its_keys(authority, tmp_path):
    """Mutual TLS, keys and a health port at once: the warm-up gets in, strangers do not, and no key is told."""
    key, certificate = authority.issue("server")
    keys = tmp_path / "keys"
    keys.write_text("first-key-0123456789\n")
    port = free_port()
    environ = {
        "NIM_SSL_MODE": "MTLS",
        "NIM_SSL_KEY_PATH": str(key),
        "NIM_SSL_CERTS_PATH": str(certificate),
        "NIM_SSL_CA_CERTS_PATH": str(authority.file),
        "NIM_API_KEYS_FILE": str(keys),
        "NIM_HEALTH_PORT": str(port),
    }
    with service(**environ) as one:
        public = one.start().port
        one.port = port
        one.wait_ready()
        assert one.status("/v1/metrics") == 200
        context = authority.client(authority.issue("client"))

        def status(shown: str) -> int:
            connection = http.client.HTTPSConnection("localhost", public, timeout=20, context=context)
            try:
                connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {shown}"})
                return connection.getresponse().status
            finally:
                connection.close()

        assert (status("first-key-0123456789"), status("other-key-0123456789")) == (200, 401)
        keys.write_text("other-key-0123456789\n")
        until(lambda: (status("first-key-0123456789"), status("other-key-0123456789")) == (401, 200), 20)
        keys.write_text("no good\n")
        until(lambda: "line 1 is not a key" in one.out + one.err, 20)
        told = one.out + one.err + json.dumps(one.asked()) + json.dumps(one.engine())
        assert "key-0123456789" not in told
        assert one.signal(signal.SIGTERM).code() == 143
