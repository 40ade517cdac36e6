"""Keys of clients: which files are taken, who gets in, and that a key goes nowhere else."""

import pytest

from entrypoint.front.keys import read_keys, render_keys
from entrypoint.front.renewal import Renewal
from nimctl.core.errors import NimctlError
from tests.unit.entrypoint.front_lab import TOKEN, lab
from tests.unit.entrypoint.service import needs_nginx, until

FIRST, SECOND = "sk-First.key_0~+/=", "QUJDREVGRw=="


def keys(path, text: str):
    path.write_text(text)
    return read_keys(path)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "0 keys"),
        ("# only a comment\n\n", "0 keys"),
        ("short\n", "line 1 "),
        ('good-key-1\nbad key"; }\n', "line 2 "),
        ("good-key-1\nk$http_host-xx\n", "line 2 "),
        ("ключ-ключ-ключ\n", "line 1 "),
        ("a" * 600, "line 1 "),
        ("".join(f"key-number-{n}\n" for n in range(1001)), "1001 keys"),
    ],
)
def test_a_file_that_is_no_list_of_keys_is_refused_without_its_content(tmp_path, text, cause):
    with pytest.raises(NimctlError) as caught:
        keys(tmp_path / "keys", text)
    error = caught.value
    assert error.id == "config-invalid" and cause in error.cause
    assert "http_host" not in f"{error.message}{error.cause}{error.fix}"


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(NimctlError, match="NIM_API_KEYS_FILE"):
            read_keys(path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00key-key-key")
    with pytest.raises(NimctlError, match="NIM_API_KEYS_FILE"):
        read_keys(tmp_path / "binary")


def test_comments_blanks_and_repetitions(tmp_path):
    found = keys(tmp_path / "keys", f"# ours\n\n  {FIRST}  \n{SECOND}\r\n{FIRST}\n")
    assert [key.reveal() for key in found.values] == [FIRST, SECOND]
    assert FIRST not in repr(found)
    assert "http_authorization" in render_keys(found)


@needs_nginx
def test_who_gets_in(tmp_path):
    file = tmp_path / "keys"
    with lab(keys=keys(file, f"{FIRST}\n{SECOND}\n")) as one:
        for good in (
            {"Authorization": f"Bearer {FIRST}"},
            {"Authorization": f"bearer  {SECOND}"},
            {"X_Api_Key": FIRST},
            {"X_Api_Key": SECOND, "Authorization": "Bearer something-else"},
            {"X_Nimctl_Warmup": TOKEN},
        ):
            assert one.chat(**good).status == 200, good
            assert not one.asked[-1].header("Authorization") and not one.asked[-1].header("X-Api-Key")
        before = len(one.asked)
        for bad in (
            {},
            {"Authorization": FIRST},
            {"Authorization": f"Bearer {FIRST.lower()}"},
            {"Authorization": f"Bearer {FIRST} "[:-2]},
            {"Authorization": f"Bearer x{FIRST}"},
            {"Authorization": "Bearer .*"},
            {"Authorization": "Basic " + FIRST},
            {"X_Api_Key": f"Bearer {FIRST}"},
            {"X_Nimctl_Warmup": "1"},
        ):
            answer = one.chat(**bad)
            assert (answer.status, answer.json["error"]["type"]) == (401, "AuthenticationError"), bad
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/v1/models", "/v1/metrics", "/v1/version", "/v1/metadata", "/v1/manifest", "/v1/license"):
            assert one.get(path).status == 401, path
        message = one.ask("POST", "/v1/messages", {})
        assert (message.status, message.json["error"]["type"]) == (401, "authentication_error")
        assert len(one.asked) == before
        for path in ("/v1/health/live", "/v1/health/ready", "/v1/health/startup", "/docs", "/openapi.json"):
            assert one.get(path).status == 200, path
        assert one.ask("OPTIONS", "/v1/chat/completions").status == 204, "preflights carry no key"
        assert one.get("/openapi.json").json["security"] == [{"bearer": []}, {"apiKey": []}]
        assert one.state.keys_config.stat().st_mode & 0o077 == 0
        assert FIRST not in one.state.nginx_config.read_text()
        assert FIRST not in repr(one.front) and TOKEN not in repr(one.front)
        assert FIRST not in one.state.request_log.read_text()
    assert FIRST not in one.log[0] and SECOND not in one.log[0]


@needs_nginx
def test_a_changed_file_counts_at_once_and_a_broken_one_changes_nothing(tmp_path):
    file = tmp_path / "keys"
    with lab(keys=keys(file, f"{FIRST}\n")) as one:
        assert one.process is not None
        renewal = Renewal(one.front, one.state, one.process.pid, check_tls=None)
        assert renewal.look() is None
        held = one.connection()
        held.request("GET", "/v1/models", headers={"X-Api-Key": FIRST})
        assert held.getresponse().read() == b'{"engine":true}'
        file.write_text("no good\n")
        with pytest.raises(NimctlError, match="NIM_API_KEYS_FILE"):
            renewal.look()
        assert renewal.look() is None
        assert one.chat(X_Api_Key=FIRST).status == 200
        file.write_text(f"{SECOND}\n")
        told = renewal.look()
        assert told is not None and SECOND not in told
        until(lambda: one.chat(X_Api_Key=SECOND).status == 200, 10)
        until(lambda: one.chat(X_Api_Key=FIRST).status == 401, 10)  # the old workers accept until they are told
        file.unlink()
        assert renewal.look() is None, "a file that is gone changes nothing"
        held.close()
