"""Fault: a server leads astray. A key goes to the origin that it was given for, and to nobody else."""

import os
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Access, Patience, fetch, http, store
from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.protocol import Interrupted
from nimctl.core.secret import Secret
from tests.lib.checkpoints import WebFiles, safetensors, sha256
from tests.lib.fault_hub import TOKEN, FaultHub, ForwardProxy, Redirect, Status
from tests.lib.fault_hub.proxy import PASSWORD

CODES = (301, 302, 303, 307, 308)
CONTENT = {"config.json": b"{}", "model.safetensors": safetensors(1000)}
QUICK = Patience(attempts=2, first=0.01, longest=0.02)
KEY = {"Authorization": "Bearer key-canary", "X-Api-Key": "second-canary"}


@pytest.fixture
def client() -> Iterator[http.Client]:
    with closing(http.Client(timeouts=http.Timeouts(5.0, 5.0))) as made:
        yield made


@pytest.fixture
def no_proxy(monkeypatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name)


pytestmark = pytest.mark.usefixtures("no_proxy")


def strangers_that_know(hub: FaultHub, *secrets: str) -> list[str]:
    others = ("cdn", "xfiles", "foreign")
    return [name for name in others for secret in secrets if hub.knows(secret, listener=name)]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("to", ["cdn", "foreign"])
def test_no_key_follows_a_redirect_to_another_host(client, code, to):
    with FaultHub() as hub:
        url = hub.add_file("model.bin", b"x" * 1000)
        hub.fail("/files/*", Redirect(to=to, code=code), on="*")
        assert client.get(url, headers=KEY).body == b"x" * 1000
        target = http.Target(url, size=1000, headers=KEY)
        for start in (0, 500):  # the second time the signed address is known
            client.open_range(target, start, 1000).close()
        assert len(hub.requests(listener=to)) == 3
        assert hub.knows("key-canary", listener="hub")
        assert strangers_that_know(hub, "key-canary", "second-canary") == []


@pytest.mark.parametrize("code", CODES)
def test_no_key_goes_to_another_port_of_the_same_host(client, code):
    with FaultHub() as hub:
        hub.listen("other port", "127.0.0.1")
        url = hub.add_file("model.bin", b"x" * 1000)
        hub.fail("/files/*", Redirect(to="other port", code=code, same_path=True), on="*", listener="hub")
        client.get(url, headers=KEY)
        client.open_range(http.Target(url, size=1000, headers=KEY), 0, 1000).close()
        assert len(hub.requests(listener="other port")) == 2
        assert hub.credentials_seen(listener="other port") == set()
        assert not hub.knows("second-canary", listener="other port")


@pytest.mark.parametrize("code", CODES)
def test_nothing_is_fetched_where_https_leads_to_http(client, code, monkeypatch):
    with FaultHub(tls=True) as hub:
        monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
        hub.listen("plain", "127.0.0.1")
        url = hub.add_file("model.bin", b"x" * 1000)
        hub.fail("/files/*", Redirect(to="plain", code=code), on="*", listener="hub")
        with pytest.raises(NimctlError) as caught:
            client.get(url, headers=KEY)
        assert caught.value.id == "weights-source-failed"
        assert "not encrypted" in caught.value.cause
        with pytest.raises(NimctlError):
            client.open_range(http.Target(url, size=1000, headers=KEY), 0, 1000)
        assert hub.requests(listener="plain") == []


@pytest.mark.parametrize(
    "place",
    [
        r"http://127.0.0.2:{cdn}\@127.0.0.1:{hub}/x",  # one parser sees the host before the backslash, another after
        r"http://127.0.0.2:{cdn}\.127.0.0.1:{hub}/x",
        "http://127.0.0.1:{hub}@127.0.0.2:{cdn}/x",
        "//127.0.0.2:{cdn}/x",
        "http://127.0.0.2:{cdn}/x#@127.0.0.1:{hub}/",
        "http://127.0.0.2:{cdn}?@127.0.0.1:{hub}/",
        "\thttp://127.0.0.2:{cdn}/x",
        "HTTP://127.0.0.2:{cdn}/x",
    ],
)
def test_no_key_is_talked_out_of_us_by_a_strange_address(client, place):
    with FaultHub() as hub:
        url = hub.add_file("model.bin", b"x" * 1000)
        ports = {name: hub.url_of(name).rpartition(":")[2] for name in ("hub", "cdn")}
        where = place.format(**ports)
        hub.fail("/files/*", Status(302, headers={"Location": where}), on="*", listener="hub")
        with suppress(NimctlError, Interrupted):
            client.get(url, headers=KEY)
        assert hub.knows("key-canary", listener="hub")
        assert strangers_that_know(hub, "key-canary", "second-canary") == []


def test_no_cookie_is_kept(client):
    with FaultHub() as hub:
        hub.listen("other port", "127.0.0.1")
        url = hub.add_file("model.bin", b"x")
        hub.fail("*", Status(404, headers={"Set-Cookie": "session=cookie-canary; Path=/"}), times=1)
        client.get(url)
        client.get(url)
        client.get(url.replace(hub.url, hub.url_of("other port")))
        assert len(hub.requests()) == 3
        assert not hub.knows("cookie-canary")


def test_no_key_is_taken_from_netrc(client, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login user password netrc-canary\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with FaultHub() as hub:
        client.get(hub.add_file("model.bin", b"x"))
        assert hub.credentials_seen() == set()


@pytest.mark.parametrize("small_files_redirect", [False, True])
def test_a_gated_model_arrives_and_its_token_stays_with_the_hub(tmp_path, small_files_redirect):
    with FaultHub() as hub:
        hub.add_repo("org/gated", CONTENT, gated="manual")
        hub.hugging_face.small_files_redirect = small_files_redirect
        access = Access(hf_token=Secret(TOKEN), hf_endpoint=hub.url)
        snapshot = fetch("hf://org/gated", tmp_path, access=access, patience=QUICK)
        assert {p.name: p.read_bytes() for p in snapshot.iterdir()} == CONTENT
        assert len(hub.requests(listener="cdn")) == 1
        assert hub.knows(TOKEN, listener="hub")
        assert strangers_that_know(hub, TOKEN) == []
    kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert TOKEN.encode() not in kept


def test_a_private_ca_is_refused_until_it_is_trusted(client, monkeypatch):
    with FaultHub(tls=True) as hub:
        url = hub.add_file("model.bin", b"x" * 1000)
        with pytest.raises(NimctlError) as caught:
            client.get(url, headers=KEY)
        assert caught.value.id == "tls-untrusted"
        assert "SSL_CERT_FILE" in caught.value.fix
        assert not hub.knows("key-canary")
        monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
        with closing(http.Client()) as trusting:
            assert trusting.get(url, headers=KEY).body == b"x" * 1000


@pytest.mark.parametrize(("first", "last"), [(-9, -2), (2, 9)], ids=["expired", "not yet valid"])
def test_a_certificate_of_another_time_means_a_wrong_clock(client, monkeypatch, first, last):
    now = datetime.now(UTC)
    with FaultHub(tls=True, valid=(now + timedelta(days=first), now + timedelta(days=last))) as hub:
        monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
        with pytest.raises(NimctlError) as caught:
            client.get(hub.add_file("model.bin", b"x"))
        assert caught.value.id == "clock-wrong"
        assert re.search(r"expired|not yet valid", caught.value.cause)
        assert f"{now:%Y-%m-%d}" in caught.value.cause


@pytest.mark.parametrize("tls", [True, False])
def test_a_proxy_that_wants_credentials_is_named(client, monkeypatch, tls):
    with FaultHub(tls=tls) as hub, ForwardProxy("credentials") as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
        monkeypatch.setenv("https_proxy" if tls else "http_proxy", proxy.url)
        url = hub.add_file("model.bin", b"x" * 1000)
        with pytest.raises(NimctlError) as caught:
            client.get(url, headers=KEY)
        assert caught.value.id == "proxy-refused"
        assert "407" in caught.value.cause
        assert hub.requests() == []
        monkeypatch.setenv("https_proxy" if tls else "http_proxy", proxy.url_with_credentials)
        with closing(http.Client()) as known:
            assert known.get(url, headers=KEY).body == b"x" * 1000
        assert not hub.knows(PASSWORD)


def test_a_proxy_that_refuses_the_host_is_named_and_learns_no_key(client, monkeypatch):
    with FaultHub(tls=True) as hub, ForwardProxy("refuses") as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(NimctlError) as caught:
            client.get(hub.add_file("model.bin", b"x"), headers=KEY)
        assert caught.value.id == "proxy-refused"
        assert "403" in caught.value.cause
        assert [p.method for p in proxy.passages] == ["CONNECT"]
        assert not any("canary" in value for p in proxy.passages for value in p.headers.values())


def test_a_fetch_over_tls_ends_in_a_verified_snapshot(tmp_path, monkeypatch):
    with FaultHub(tls=True) as hub:
        monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
        hub.add_repo("org/name", CONTENT)
        snapshot = fetch("hf://org/name", tmp_path, access=Access(hf_endpoint=hub.url), patience=QUICK)
        assert {p.name: p.read_bytes() for p in snapshot.iterdir()} == CONTENT


def test_a_cut_tls_connection_never_passes_for_an_end(tmp_path, monkeypatch, client):
    from_hub = safetensors(5 * 2**20)
    with FaultHub(tls=True) as hub:
        monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
        file = File("model.safetensors", len(from_hub), sha256(from_hub))
        source = WebFiles((file,), {file.path: hub.add_file(file.path, from_hub)}, client)
        hub.fail("model.safetensors", "2*cut(4_500_000)->1*reset(100)->off")
        snapshot = _ensure(source, tmp_path)
        assert (snapshot / file.path).read_bytes() == from_hub


def _ensure(source: WebFiles, folder: Path) -> Path:
    patience = Patience(attempts=4, first=0.01, longest=0.02)
    return store.ensure(source, source.resolve(), CachePaths(folder), lambda _: None, patience=patience)
