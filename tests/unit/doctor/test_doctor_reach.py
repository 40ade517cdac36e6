"""Asking hosts side by side: what they answer, whose authorities count, and that what hangs is left behind."""

import json
import socket
import subprocess
import threading
import time

import pytest

from nimctl.core.plain import to_plain
from nimctl.doctor.observe import visit
from nimctl.doctor.observe.reach import Destination, is_offline, reach
from nimctl.doctor.observe.trust import Trust
from tests.lib.fault_hub import FaultHub, Status

PLENTY = 20.0  # seconds; nothing here needs a fraction of them


def ask(*urls, environment=None, purpose="weights", seconds=PLENTY):
    destinations = [Destination(url, purpose) for url in urls]
    found = reach(destinations, environment or {}, time.monotonic() + seconds)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def secure():
    with FaultHub(tls=True) as hub:
        yield hub


def test_nobody_to_ask():
    assert reach((), {}, time.monotonic() + PLENTY) is None


def test_hosts_are_told_in_the_order_of_the_question(secure):
    urls = [secure.url_of(name) for name in ("xfiles", "hub", "cdn")]
    found = ask(*urls, environment={"SSL_CERT_FILE": str(secure.ca_file)})
    assert [(h.url, h.state, h.via) for h in found] == [(url, "ok", None) for url in urls]
    assert all(h.skew is not None and abs(h.skew) < 60 for h in found)


def test_any_answer_of_a_host_is_an_answer():
    with FaultHub() as hub:
        url = hub.add_file("file", b"content")
        for status in (401, 403, 404, 500):
            hub.heal()
            hub.fail("*", Status(status))
            (found,) = ask(url)
            assert (found.state, found.detail) == ("ok", None)
        assert [entry.status for entry in hub.requests()] == [401, 403, 404, 500]


def test_user_and_password_in_an_address_are_not_kept():
    with FaultHub() as hub:
        (found,) = ask(hub.url.replace("://", "://user:canary@"))
    assert found.url == hub.url and "canary" not in json.dumps(to_plain(found))


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"])
def test_authorities_that_the_environment_names_count(secure, variable):
    (found,) = ask(secure.url, environment={variable: str(secure.ca_file)})
    assert found.state == "ok"


def test_a_folder_of_authorities_counts(secure, tmp_path):
    digest = "openssl x509 -hash -noout"
    (tmp_path / "named").mkdir()
    name = subprocess.run([*digest.split(), "-in", secure.ca_file], capture_output=True, text=True, check=True).stdout
    (tmp_path / "named" / f"{name.strip()}.0").write_bytes(secure.ca_file.read_bytes())
    (found,) = ask(secure.url, environment={"SSL_CERT_DIR": f"{tmp_path}/none:{tmp_path}/named"})
    assert found.state == "ok"


def test_the_folder_of_a_registry_counts_for_it_alone(secure, tmp_path):
    authority = secure.url.removeprefix("https://")
    folder = tmp_path / authority
    folder.mkdir()
    (folder / "ca.crt").write_bytes(secure.ca_file.read_bytes())
    now = time.monotonic()
    way = visit.Way({}, Trust({}, registry_folder=tmp_path), now, now + PLENTY)
    assert visit.Visit(f"{secure.url}/v2/", "image", way).make().state == "ok"
    assert visit.Visit(secure.url, "weights", way).make().state == "tls"


@pytest.mark.parametrize("purpose", ["image", "weights"])
def test_a_bundle_that_cannot_be_used_stops_every_request(secure, tmp_path, purpose):
    (tmp_path / "empty.pem").touch()
    for path in (tmp_path / "gone.pem", tmp_path / "empty.pem"):
        environment = {"SSL_CERT_FILE": str(secure.ca_file), "REQUESTS_CA_BUNDLE": str(path)}
        (found,) = ask(secure.url, environment=environment, purpose=purpose)
        assert found.state == "tls" and str(path) in (found.detail or "")


def test_a_name_that_is_none(monkeypatch):
    real = socket.getaddrinfo

    def unknown(host, *args, **kwargs):
        if host == "nothing.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = ask("https://nothing.invalid", "https://" + "a" * 64 + ".test", "https://")
    assert [h.state for h in found[:2]] == ["dns", "dns"]
    assert found[2].state != "ok"
    assert "nothing.invalid was not resolved" in (found[0].detail or "")


def test_a_name_service_that_is_dead_is_left_behind(monkeypatch):
    real, dead = socket.getaddrinfo, threading.Event()

    def hang(host, *args, **kwargs):
        if host == "dead.test":
            dead.wait(PLENTY)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with FaultHub() as hub:
            slow, quick = ask("https://dead.test", hub.url, seconds=0.5)
    finally:
        dead.set()
    assert slow.state == "dns" and "dead.test was not resolved within" in (slow.detail or "")
    assert quick.state == "ok"


def test_an_address_that_swallows_everything_leaves_time_for_the_others(monkeypatch):
    with FaultHub() as hub, socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]  # a queue that is full answers no further connection
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        port = int(hub.url.rpartition(":")[2])
        places = [full.getsockname(), ("127.0.0.1", port)]
        real = socket.getaddrinfo

        def both(host, *args, **kwargs):
            if host == "two.test":
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
            return real(host, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", both)
        (found,) = ask(f"http://two.test:{port}", seconds=2.0)
        places.reverse()
        places.pop(0)
        (alone,) = ask(f"http://two.test:{port}", seconds=0.5)
        for filler in fillers:
            filler.close()
    assert found.state == "ok"
    assert alone.state == "timeout" and "did not accept the connection" in (alone.detail or "")


def test_a_date_that_is_none_tells_no_skew(monkeypatch):
    for date in ("", "yesterday", "Mon, 99 Foo 2026 00:00:00 GMT"):
        monkeypatch.setattr(visit, "_answer", lambda line, method, date=date: (200, date))
        with FaultHub() as hub:
            (found,) = ask(hub.url)
        assert (found.state, found.skew) == ("ok", None)


@pytest.mark.parametrize(
    ("environment", "offline"),
    [
        ({}, False),
        ({"HF_HUB_OFFLINE": "1"}, True),
        ({"HF_HUB_OFFLINE": "Yes"}, True),
        ({"HF_HUB_OFFLINE": "0"}, False),
        ({"HF_HUB_OFFLINE": "sometimes"}, False),
        ({"TRANSFORMERS_OFFLINE": "true"}, False),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, False),
        ({"HF_HUB_OFFLINE": " ON "}, True),
    ],
)
def test_offline_is_what_the_hubs_own_library_takes_for_it(environment, offline):
    assert is_offline(environment) is offline
