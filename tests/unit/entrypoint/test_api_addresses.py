"""Which hosts media may come from: names before they are resolved, addresses after."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.api.addresses import Allowed, addresses_of, is_public, target_of
from entrypoint.api.refusals import RefusedError

ANY = Allowed()
# The usual list of https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
PRIVATE = [
    "127.0.0.1", "127.1", "0", "0.0.0.0", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001",
    "127.0.0.1.", "10.0.0.1", "172.16.5.4", "192.168.1.1", "100.64.0.1", "169.254.169.254", "169.254.170.2",
    "0xa9fea9fe", "2852039166", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]", "[fe80::1]", "[fc00::1]",
    "[fd00:ec2::254]", "[ff02::1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]",
    "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2001:0:4136:e378:8000:63bf:5601:5601]", "[fec0::1]", "[2001:db8::1]",
    "[0:0:0:0:0:ffff:7f00:0001]", "[::ffff:0:127.0.0.1]",
    "168.63.129.16", "0xa83f8110", "[64:ff9b::a83f:8110]", "192.0.0.192", "192.0.0.9", "192.88.99.1", "100.100.100.200",
    "[fd20:ce::254]", "[3fff::1]", "[5f00::1]", "[2001:1::1]", "[2001:20::1]", "[100::1]", "[64:ff9b::c000:c0]",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_private_address_in_any_dress(host, scheme):
    with pytest.raises(RefusedError, match="NIM_ALLOWED_MEDIA_DOMAINS"):
        target_of(f"{scheme}://{host}/latest/meta-data/", ANY)


@pytest.mark.parametrize("host", ["8.8.8.8", "1.1.1.1", "[2606:4700::1111]", "[64:ff9b::808:808]", "example.org"])
def test_the_internet_is_open(host):
    assert target_of(f"https://{host}/a.png?b=c#d", ANY).path == "/a.png?b=c"


@pytest.mark.parametrize(
    "url",
    [
        "http://user@example.org/", "http://a:b@example.org/", "http://example.org\\@10.0.0.1/", "http://exa mple.org/",
        "http://example.org/\r\nHost: x", "http://example.org/\x00", "\thttp://example.org/", "file:///etc/passwd",
        "ftp://example.org/", "gopher://example.org/", "//example.org/", "example.org/a.png", "http://", "http:///x",
        "http://[::1", "http://example.org:99999/", "http://example.org:x/", "http://exa%6dple.org/", "", "jar:http://x/",
        "http://example.org/" + "x" * 9000, "HTTPX://example.org/", "unix:/run/x.sock", "http://e\u2028x.org/",
        "http://example.org:22/", "http://example.org:25/", "http://%31%32%37.0.0.1/",
    ],
)  # fmt: skip
def test_urls_that_are_none_of_ours(url):
    with pytest.raises(RefusedError):
        target_of(url, ANY)


def test_what_is_kept_of_a_url():
    assert target_of("http://example.org/ü%20[1].png?q=ä&r=%zz", ANY).path == "/%C3%BC%20[1].png?q=%C3%A4&r=%zz"
    assert target_of("HTTP://EXAMPLE.org.:8080", ANY) == ("http", "example.org", 8080, "/")
    assert target_of("https://bücher.example/a", ANY) == ("https", "xn--bcher-kva.example", 443, "/a")
    assert target_of("http://①②⑦.example/", ANY).host == "127.example"
    with pytest.raises(RefusedError):
        target_of("http://①②⑦.⓪.⓪.①/", ANY)  # compatibility digits: the name is 127.0.0.1


def test_named_hosts_are_the_only_ones_and_may_be_private():
    allowed = Allowed.read(["Pictures.example", "10.0.0.7:8080", "*.cdn.example", "[fd00::7]:81", "bücher.example"])
    for url in (
        "http://pictures.example/",
        "http://10.0.0.7:8080/",
        "https://a.b.cdn.example/",
        "http://[fd00::7]:81/",
        "http://bücher.example/",
        "http://xn--bcher-kva.example/",
    ):
        target_of(url, allowed)
    for url in ("http://example.org/", "http://10.0.0.7/", "http://cdn.example/", "http://xpictures.example/"):
        with pytest.raises(RefusedError, match="does not name it"):
            target_of(url, allowed)
    with pytest.raises(RefusedError, match="turned off"):
        target_of("http://pictures.example/", Allowed.read(["none"]))


def answers(*addresses):
    return lambda host, port, **_: [(socket.AF_INET, 1, 6, "", (address, port)) for address in addresses]


def test_every_address_of_a_name_is_judged(monkeypatch):
    target = target_of("http://example.org/", ANY)
    monkeypatch.setattr(socket, "getaddrinfo", answers("93.184.216.34", "2606:4700::1"))
    assert [str(a) for a in addresses_of(target, ANY)] == ["93.184.216.34", "2606:4700::1"]
    for bad in ("127.0.0.1", "169.254.169.254", "fe80::1%eth0", "::1"):
        monkeypatch.setattr(socket, "getaddrinfo", answers("93.184.216.34", bad))
        with pytest.raises(RefusedError, match="not a public address"):
            addresses_of(target, ANY)


def test_a_named_name_may_be_at_home_but_is_never_the_metadata_service(monkeypatch):
    allowed = Allowed.read(["pictures.example", "169.254.169.254"])
    target = target_of("http://pictures.example/", allowed)
    monkeypatch.setattr(socket, "getaddrinfo", answers("10.1.2.3", "127.0.0.1"))
    assert len(addresses_of(target, allowed)) == 2
    for bad in (
        "169.254.169.254", "0.0.0.0", "fe80::1", "::ffff:169.254.169.254", "168.63.129.16", "192.0.0.192",
        "100.100.100.200", "fd00:ec2::254", "fd20:ce::254",
    ):  # fmt: skip
        monkeypatch.setattr(socket, "getaddrinfo", answers(bad))
        with pytest.raises(RefusedError):
            addresses_of(target, allowed)
    assert target_of("http://169.254.169.254/", allowed).host == "169.254.169.254"  # written out by the operator
    target_of("http://168.63.129.16:32526/", Allowed.read(["168.63.129.16"]))


def test_a_name_without_address(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(RefusedError, match="no address for the host"):
        addresses_of(target_of("http://nowhere.example/", ANY), ANY)


@given(st.text(max_size=60) | st.builds("http://{}".format, st.text(max_size=40)))
def test_no_text_raises_anything_else(text):
    try:
        target = target_of(text, ANY)
    except RefusedError:
        return
    assert target.host
    assert target.scheme in ("http", "https")


@given(st.ip_addresses())
def test_public_is_never_more_than_what_the_library_says(address):
    if is_public(address):
        assert address.is_global
        assert not address.is_private
        assert not address.is_loopback


@given(st.ip_addresses(v=4))
def test_an_address_inside_an_address_counts(inner):
    for prefix in ("::ffff:0:0", "2002::", "::"):
        number = int(ipaddress.IPv6Address(prefix))
        hidden = ipaddress.IPv6Address(number | (int(inner) << (80 if prefix == "2002::" else 0)))
        assert not is_public(hidden)
    assert is_public(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | int(inner))) == is_public(inner)
