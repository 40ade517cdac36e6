"""Keys are found wherever they lie, in whatever form, and lie nowhere after logins and pulls that work and fail.

All verbs, both runtimes, builds and twelve sinks are the matter of `benchmarks/key_sinks`; here is what takes seconds.
"""

import base64
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from nimctl.core.command import run
from tests.conftest import ROOT
from tests.lib import key_stage, spawned
from tests.lib.canaries import Hit, Hunt, files_since, forms
from tests.lib.documents import validate
from tests.lib.lab import registry as the_registry

CANARY = "nvapi-c4n4ry/of the+tests==~é"
HUNT = Hunt({"key": CANARY})
SHAPES = {
    "raw": CANARY,
    "basic": base64.b64encode(f"$oauthtoken:{CANARY}".encode()).decode(),
    "base64": base64.b64encode(CANARY.encode()).decode(),
    "base64, shifted once": base64.b64encode(f"a{CANARY}b".encode()).decode(),
    "base64 of addresses": base64.urlsafe_b64encode(f"ab{CANARY}".encode()).decode(),
    "address": f"https://user:{quote(CANARY, safe='')}@host/",
    "json": json.dumps({"key": CANARY}),
    "hexadecimal": CANARY.encode().hex(),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_key_is_found_in_every_shape(shape: str, tmp_path: Path) -> None:
    text = f"before {SHAPES[shape]} after"
    assert HUNT.in_text(text, "here")
    for name, content in (("plain", text.encode()), ("binary", b"\0\xff\n" + text.encode() + b"\0" * 5000)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "packed").write_bytes(gzip.compress(b"x" * 70_000 + text.encode()))
    assert {Path(hit.where).name for hit in HUNT.in_tree(tmp_path)} == {"plain", "binary", "packed"}
    assert HUNT.in_stream(["cat", str(tmp_path / "binary")], "stream")
    assert not HUNT.in_text(text.replace("c4n4ry", "canary").replace(SHAPES[shape], "other"), "here")


def test_only_what_is_new_is_searched_where_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(CANARY)
    changed = (tmp_path / "file").stat().st_ctime
    assert files_since(tmp_path, since=changed - 1) and not files_since(tmp_path, since=changed + 1)
    assert not files_since(tmp_path, since=0, skip=[tmp_path / "file"]) and not files_since("/no/such", since=0)


def test_a_short_canary_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        Hunt({"key": "abc"})
    assert len(forms("c4n4ry-without-oddities")) == 5, "raw, hexadecimal and base64 at three offsets"


def test_words_and_variables_are_read_from_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(
        '7 execve("/bin/sh", ["sh", "-c", "a\\"],\\n[\\303\\251"], ["X=1", "Y=]"]) = 0\n'
        '8 execve("/no", ["no"], []) = -1 ENOENT (No such file or directory)\n'
        "7 +++ exited with 0 +++\n"
    )
    first, second = spawned.read(trace)
    assert first.argv == ("sh", "-c", 'a"],\n[é') and first.environ == ("X=1", "Y=]")
    assert second.argv == ("no",) and not second.environ


def test_programs_that_are_started_inherit_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NGC_API_KEY", "NGC_CLI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "NIMCTL_SIGN_PASSPHRASE",
                 "DOCKER_AUTH_CONFIG"):  # fmt: skip
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-a-credential-helper")
    shown = run([sys.executable, "-c", "import os; print(dict(os.environ))"])
    assert shown.ok and "of-a-credential-helper" in shown.stdout and not HUNT.in_text(shown.stdout, "environment")
    given = run([sys.executable, "-c", "import os; print(dict(os.environ))"], env={"HF_TOKEN": CANARY, "A": "b"})
    assert "'A': 'b'" in given.stdout and not HUNT.in_text(given.stdout, "environment")


@pytest.mark.lab
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_logins_and_pulls_leave_no_key_anywhere(tmp_path: Path) -> None:
    canaries = key_stage.new_canaries()
    options = {"parts": ["quick"], "plant": "c4n4ry-of-the-plant", "large_mib": 0}
    with key_stage.own_registry(tmp_path / "registry", canaries["registry password"]) as place:
        stage_file = key_stage.set_stage(tmp_path, place, "http://127.0.0.1:9", canaries, options)
        stage, trace = json.loads(stage_file.read_text()), tmp_path / "private/trace"
        scenes = [sys.executable, "-m", "tests.lib.key_scenes", str(stage_file)]
        played = subprocess.run(
            [*spawned.strace(trace), *scenes], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert played.returncode == 0, played.stderr
        log = the_registry.info(place), (place.logs / "front.log").read_text()
    for path in Path(stage["out"]).glob("*.stdout"):
        if (text := path.read_text()).startswith("{"):
            validate(json.loads(text))
    hunt = Hunt({**canaries, "plant": options["plant"]})
    out, started = Path(stage["out"]), spawned.read(trace)
    assert len(list(out.glob("*.stdout"))) >= 9 and len(started) > 20
    words = {hit for one in started for word in one.argv for hit in hunt.in_text(word, "argv")}
    told = ("HTTP_PROXY=", "HTTPS_PROXY=")  # the shell's own, as every program inherits them
    variables = {
        hit
        for one in started
        if one.argv[1:3] != ("-m", "nimctl")
        for entry in one.environ
        if not entry.startswith(told)
        for hit in hunt.in_text(entry, f"{one.argv}")
    }
    assert words == {Hit("argv", "plant", "raw")} and {hit.canary for hit in variables} == {"plant"}
    assert not hunt.in_text(log[1], "front.log")
    assert not hunt.in_tree(out, stage["home"], tmp_path / "tmp")
    # and where a login is to be kept, it is
    assert hunt.in_tree(tmp_path / "docker/plain") and hunt.in_tree(tmp_path / "bin")
    kept = json.loads((tmp_path / "docker/store/config.json").read_text())
    assert stage["registry"] in kept["auths"] and not hunt.in_tree(tmp_path / "docker/store")
