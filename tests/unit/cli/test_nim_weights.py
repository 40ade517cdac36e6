"""What an image's own downloader died of, in one cause and one way out."""

import pytest

from nimctl.cli import nim_weights
from nimctl.core.errors import NimctlError


def died(*lines, error_id="container-died"):
    return NimctlError(error_id, "it ended", cause="it ended by itself", fix="Read.", evidence=lines)


@pytest.mark.parametrize(
    ("line", "error_id", "code"),
    [
        ("OSError: [Errno 28] No space left on device", "disk-full", 9),
        ("Authentication Error: status 401", "key-refused", 4),
        ("Could not match a profile in manifest", "profile-unfit", 7),
        ("error sending request for url (https://api.ngc.nvidia.com/v2)", "weights-source-unreachable", 6),
        ("repo file list has not been validated", "container-died", 8),
    ],
)
def test_its_last_words_say_what_is_wrong(line, error_id, code):
    found = nim_weights.failed(died(line), "r/x:1", 1)
    assert (found.id, found.exit_code, found.evidence) == (error_id, code, (line,))
    assert "exit code 1" in found.message


def test_what_is_recognised_already_stays():
    error = died("x", error_id="engine-out-of-memory")
    assert nim_weights.failed(error, "r/x:1", 1) is error


def test_the_bytes_below_a_folder(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_bytes(b"12345")
    (tmp_path / "gone").symlink_to("nowhere")
    assert nim_weights.bytes_below(tmp_path) >= 5
    assert nim_weights.bytes_below(tmp_path / "none") == 0
