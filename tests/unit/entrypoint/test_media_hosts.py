"""The words of NIM_ALLOWED_MEDIA_DOMAINS: which are hosts, and in which form they are compared."""

import pytest

from entrypoint.settings.mediahosts import media_hosts


@pytest.mark.parametrize(
    ("word", "host"),
    [
        ("Pictures.Example.", "pictures.example"), ("localhost", "localhost"), ("a_b.example:8080", "a_b.example:8080"),
        ("*.cdn.example", "*.cdn.example"), ("*.cdn.example:81", "*.cdn.example:81"), ("10.0.0.7:80", "10.0.0.7:80"),
        ("[FD00::0:7]:81", "[fd00::7]:81"), ("fd00::7", "fd00::7"), ("[fd00::7]", "fd00::7"),
        ("bücher.example", "xn--bcher-kva.example"), ("*.bücher.example:8", "*.xn--bcher-kva.example:8"),
    ],
)  # fmt: skip
def test_hosts_are_kept_as_urls_are_compared_with_them(word, host):
    assert [str(found) for found in media_hosts([word, "b.example"]) or ()] == [host, "b.example"]
    assert media_hosts([host, "b.example"]) == media_hosts([word, "b.example"])


def test_no_word_and_the_word_none():
    assert media_hosts([]) == ()
    assert media_hosts(["None"]) is None


@pytest.mark.parametrize(
    "word",
    [
        "https://assets.ngc.nvidia.com/x", "https://a.example", "a.example/x", "*", "*.", "a.*.example", "*a.example",
        "10.0.0.0/8", "none", "*.none:x", "a.example:", "a.example:0", "a.example:65536", "a.example:x", "a..example",
        "-a.example", "1.2.3", "1.2.3.4.5", "*.1.2.3.4", "[10.0.0.7]:80", "[fd00::7", "[fd00::7]80", "fd00::x", "[]:80",
        "me@a.example", "a" * 64 + ".example", "a." * 127 + "ab", "x\u2028y.example", "\ud800.example", "",
    ],
)  # fmt: skip
def test_what_is_no_host(word):
    with pytest.raises(ValueError, match=r"hosts are expected: a\.example"):
        media_hosts([word, "b.example"])
