"""Fault: the network between this host and what the model needs. Each is told apart, as the download itself does."""

import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostReach, NetworkFacts
from nimctl.core.fetch import http
from nimctl.core.fetch.protocol import Interrupted
from nimctl.core.plain import to_plain
from nimctl.doctor.observe import visit
from nimctl.doctor.observe.network import look_at_authorities
from nimctl.doctor.observe.reach import Destination, reach
from tests.lib.fault_hub import PASSWORD, FaultHub, ForwardProxy, Garbage, Reset, Stall
from tests.unit.doctor.hosts import host, judge

DAY = timedelta(days=1)
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
             "SSL_CERT_FILE", "SSL_CERT_DIR")  # fmt: skip


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def secure():
    with FaultHub(tls=True) as hub:
        yield hub


def ask(url: str, environment: dict[str, str], seconds: float = 20.0) -> HostReach:
    found = reach([Destination(url, "weights")], environment, time.monotonic() + seconds)
    assert found is not None
    return found[0]


def verdict(reached: HostReach, environment: dict[str, str] | None = None) -> tuple[str, str]:
    """What the checks fail with, whichever of them does."""
    facts = host(network=NetworkFacts(authorities=look_at_authorities(environment or {}), reached=(reached,)))
    findings = [finding for check in ("ca", "clock", "hosts") for finding in judge(check, facts)]
    failed = [finding for finding in findings if finding.verdict == "fail"]
    assert len(failed) <= 1, "a cause fails once"
    return ("fail", failed[0].id) if failed else ("pass", "hosts")


def download(url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The id that the download itself ends with; None where it gets an answer."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = http.Client(timeouts=http.client.Timeouts(connect=5.0, read=5.0))
    try:
        client.get(url, method="HEAD")
    except NimctlError as error:
        return error.id
    except Interrupted as error:
        return error.id or "weights-source-failed"
    finally:
        client.close()
    return None


def trusting(hub: FaultHub, **more: str) -> dict[str, str]:
    return {"SSL_CERT_FILE": str(hub.ca_file), **more}


def test_a_private_ca_that_is_not_known_here(secure, monkeypatch):
    reached = ask(secure.url, {})
    assert reached.state == "tls" and "issuer" in (reached.detail or "")
    assert verdict(reached) == ("fail", "tls-untrusted") == ("fail", download(secure.url, {}, monkeypatch))


def test_a_private_ca_that_is_known_here(secure, monkeypatch):
    environment = trusting(secure)
    assert verdict(ask(secure.url, environment), environment) == ("pass", "hosts")
    assert download(secure.url, environment, monkeypatch) is None


def test_a_certificate_of_another_name():
    with FaultHub(hosts={}) as other:
        url = other.listen("hub", "127.0.0.9", tls=True)  # an address that the certificate does not name
        reached = ask(url, trusting(other))
    assert reached.state == "tls" and "127.0.0.9" in (reached.detail or "")


@pytest.mark.parametrize(
    ("days", "words"), [((-9, -3), "certificate has expired"), ((3, 9), "certificate is not yet valid")]
)
def test_a_certificate_that_is_not_valid_now(days, words, monkeypatch):
    now = datetime.now(UTC)
    with FaultHub(tls=True, valid=(now + days[0] * DAY, now + days[1] * DAY)) as hub:
        reached = ask(hub.url, trusting(hub))
        assert reached.state == "clock" and words in (reached.detail or "")
        assert reached.skew is not None and abs(reached.skew) < 60  # the host's own clock agrees: its fault
        assert verdict(reached) == ("fail", "clock-wrong")
        assert download(hub.url, trusting(hub), monkeypatch) == "clock-wrong"


def test_a_clock_that_is_days_behind_is_proven_by_the_hosts_own(monkeypatch):
    now = datetime.now(UTC)
    with FaultHub(tls=True, valid=(now + 3 * DAY, now + 9 * DAY)) as hub:
        # as if it was five and a half days ago here: to OpenSSL it is, by the dates of the certificate
        clock = SimpleNamespace(time=(now - 5.5 * DAY).timestamp, monotonic=time.monotonic)
        monkeypatch.setattr(visit, "time", clock)
        reached = ask(hub.url, trusting(hub))
    assert reached.state == "clock" and reached.skew is not None and -6 * 86400 < reached.skew < -5 * 86400
    facts = host(network=NetworkFacts(reached=(reached,)))
    (clock,), (hosts,) = judge("clock", facts), judge("hosts", facts)
    assert (clock.verdict, clock.id) == ("fail", "clock-wrong") and "5 d" in clock.title and "behind" in clock.title
    assert hosts.verdict == "skip"


@pytest.mark.parametrize("mode", ["works", "refuses", "credentials"])
def test_proxies(secure, mode, monkeypatch):
    with ForwardProxy(mode) as proxy:
        environment = trusting(secure, HTTPS_PROXY=proxy.url)
        reached = ask(secure.url, environment)
        assert reached.via == proxy.url.removeprefix("http://")
        assert [p.method for p in proxy.passages][:1] == ["CONNECT"]
        ended = download(secure.url, environment, monkeypatch)
    if mode == "works":
        assert (reached.state, ended) == ("ok", None)
        return
    assert reached.state == "proxy" and {"refuses": "403", "credentials": "407"}[mode] in (reached.detail or "")
    assert verdict(reached) == ("fail", "proxy-refused") == ("fail", ended)


def test_the_login_of_a_proxy_is_used_and_never_kept(secure):
    for url in (secure.url, None):
        with ForwardProxy("credentials") as proxy, FaultHub() as plain:
            environment = trusting(
                secure, HTTPS_PROXY=proxy.url_with_credentials, HTTP_PROXY=proxy.url_with_credentials
            )
            reached = ask(url or plain.url, environment)
            assert reached.state == "ok" and reached.via == proxy.url.removeprefix("http://")
            assert proxy.passages[-1].status == 200
        assert PASSWORD not in str(to_plain(reached)) and "proxy-user" not in str(to_plain(reached))


def test_the_login_of_a_proxy_does_not_reach_the_host():
    with ForwardProxy("credentials") as proxy, FaultHub() as hub:
        assert ask(hub.url, {"HTTP_PROXY": proxy.url_with_credentials}).state == "ok"
        (request,) = hub.requests()
        assert "proxy-authorization" not in {name.lower() for name in request.headers}


def test_a_plain_request_that_a_proxy_cannot_pass_on():
    with ForwardProxy("works") as proxy:
        reached = ask("http://127.0.0.1:1", {"HTTP_PROXY": proxy.url})
    assert reached.state == "proxy" and "502" in (reached.detail or "")


def test_a_proxy_that_is_not_there(secure, monkeypatch):
    with ForwardProxy() as proxy:
        gone = proxy.url
    environment = trusting(secure, HTTPS_PROXY=gone)
    reached = ask(secure.url, environment)
    assert reached.state == "proxy" and "the proxy does not answer" in (reached.detail or "")
    assert verdict(reached) == ("fail", "proxy-refused") == ("fail", download(secure.url, environment, monkeypatch))


def test_no_proxy_leads_around_a_broken_one(secure):
    environment = trusting(secure, HTTPS_PROXY="http://127.0.0.1:1", NO_PROXY="10.0.0.0/8,127.0.0.0/8")
    reached = ask(secure.url, environment)
    assert (reached.state, reached.via) == ("ok", None)


@pytest.mark.parametrize("form", ["socks5://user:canary@127.0.0.1:1", "http://user:canary@:1"])
def test_a_proxy_of_another_kind(secure, form):
    reached = ask(secure.url, trusting(secure, ALL_PROXY=form))
    assert reached.state == "proxy" and "canary" not in str(to_plain(reached))
    assert verdict(reached) == ("fail", "proxy-refused")


def test_nobody_listens(monkeypatch):
    with FaultHub() as hub:
        url = hub.url
    reached = ask(url, {})
    assert reached.state == "refused"
    assert verdict(reached) == ("fail", "weights-source-unreachable") == ("fail", download(url, {}, monkeypatch))


def test_a_name_that_nobody_knows(monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    reached = ask("https://nothing.invalid", {})
    assert reached.state == "dns"
    ended = download("https://nothing.invalid", {}, monkeypatch)
    assert verdict(reached) == ("fail", "weights-source-unreachable") == ("fail", ended)


def test_a_host_that_says_nothing_is_left_in_time():
    with FaultHub() as hub:
        url = hub.add_file("file", b"content")
        hub.fail("*", Stall(after=-1), method="*")
        reached = ask(url, {}, seconds=0.5)
    assert reached.state == "timeout" and "it did not answer within" in (reached.detail or "")
    assert verdict(reached) == ("fail", "weights-source-unreachable")


@pytest.mark.parametrize("fault", [Reset(), Garbage()])
def test_a_host_that_hangs_up_or_talks_nonsense(fault):
    with FaultHub() as hub:
        url = hub.add_file("file", b"content")
        hub.fail("*", fault, method="*")
        reached = ask(url, {})
    assert reached.state == "failed" and reached.detail
    assert verdict(reached) == ("fail", "weights-source-failed")


def test_tls_where_there_is_none_and_none_where_there_is():
    with FaultHub() as plain:
        assert ask(plain.url.replace("http:", "https:"), {}).state == "failed"
    with FaultHub(tls=True) as secure:
        assert ask(secure.url.replace("https:", "http:"), {}).state == "failed"


def test_a_bundle_that_is_missing_is_the_one_thing_said(secure, tmp_path: Path, monkeypatch):
    environment = trusting(secure, REQUESTS_CA_BUNDLE=str(tmp_path / "gone.pem"))
    reached = ask(secure.url, environment)
    assert reached.state == "tls"
    assert verdict(reached, environment) == ("fail", "tls-untrusted")
    assert download(secure.url, environment, monkeypatch) is not None
