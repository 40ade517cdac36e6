"""The one lookup of keys: which variable wins, and what a key file must be."""

from pathlib import Path

import pytest

from nimctl.core import keys
from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret

CANARY = "nvapi-canary-0123456789"
ALL = {"NGC_CLI_API_KEY": "cli", "NGC_API_KEY": "own", "NGC_API_KEY_FILE": "/key"}


def read(path: Path) -> str:
    return {Path("/key"): "filed\n", Path("/blank"): " \n"}[path]


def nobody_reads(path: Path) -> str:
    raise AssertionError(f"{path} was read although a variable holds the key")


def test_ngc_keys_are_looked_for_in_nims_order():
    assert keys.find_key("NGC_API_KEY", ALL, nobody_reads) == Secret("cli")
    assert keys.find_key("NGC_API_KEY", {**ALL, "NGC_CLI_API_KEY": " "}, nobody_reads) == Secret("own")
    assert keys.find_key("NGC_API_KEY", {"NGC_API_KEY_FILE": "/key"}, read) == Secret("filed")
    assert keys.find_key("NGC_API_KEY", {"NGC_API_KEY_FILE": "", "HF_TOKEN": "other"}, nobody_reads) is None


def test_hugging_face_tokens_come_from_their_variable_then_from_their_file():
    assert keys.find_key("HF_TOKEN", {"HF_TOKEN": " hf \n", "HF_TOKEN_FILE": "/key"}, nobody_reads) == Secret("hf")
    assert keys.find_key("HF_TOKEN", {"HF_TOKEN_FILE": "/key", **dict.fromkeys(ALL, "x")}, read) == Secret("filed")
    assert keys.sources("HF_TOKEN") == ("HF_TOKEN", "HF_TOKEN_FILE")


def test_a_real_file_is_read_without_its_line_end(tmp_path):
    (tmp_path / "key").write_text(f"{CANARY}\n")
    assert keys.find_key("HF_TOKEN", {"HF_TOKEN_FILE": str(tmp_path / "key")}) == Secret(CANARY)


@pytest.mark.parametrize(
    ("content", "error_id"), [(None, "config-invalid"), (b"\xff\xfe", "config-invalid"), (b" \n", "key-missing")]
)
def test_a_file_without_a_key_is_an_error_that_names_variable_and_file(tmp_path, content, error_id):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NimctlError) as caught:
        keys.find_key("NGC_API_KEY", {"NGC_API_KEY_FILE": str(path)})
    assert caught.value.id == error_id
    assert "NGC_API_KEY_FILE" in caught.value.message and str(path) in caught.value.message
    assert not keys.is_present("NGC_API_KEY", {"NGC_API_KEY_FILE": str(path)})


def test_an_endless_file_does_not_hang():
    assert not keys.is_present("HF_TOKEN", {"HF_TOKEN_FILE": "/dev/null"})
    assert len((keys.find_key("HF_TOKEN", {"HF_TOKEN_FILE": "/dev/zero"}) or Secret("")).reveal()) <= 64 * 1024


def test_a_broken_file_is_an_error_only_for_the_key_that_is_needed():
    environment = {"NGC_CLI_API_KEY": CANARY, "HF_TOKEN_FILE": "/blank"}
    assert keys.present(environment, read=read) == ("NGC_API_KEY",)
    assert keys.present(environment, needed="NGC_API_KEY", read=read) == ("NGC_API_KEY",)
    with pytest.raises(NimctlError):
        keys.present(environment, needed="HF_TOKEN", read=read)
