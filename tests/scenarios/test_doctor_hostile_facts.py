"""Duty: a facts file that a stranger sent is refused in words, or judged, and never obeyed."""

import json
from pathlib import Path
from typing import Any

import pytest

from nimctl.core.facts import to_json
from tests.conftest import Nimctl
from tests.unit.doctor.hosts import HEALTHY, host

NESTED = '{"a":' * 20_000 + "1" + "}" * 20_000


def written(folder: Path, document: Any) -> str:
    path = folder / "facts.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def changed(part: str, **values: Any) -> dict[str, Any]:
    document = to_json(HEALTHY)
    document[part] |= values
    return document


@pytest.mark.parametrize(
    "document",
    [
        NESTED,
        changed("system", memory_total=10**400),
        changed("cache", disk=None, entries_bytes=2**63),
        json.dumps(to_json(HEALTHY)).replace('"look_seconds": null', '"look_seconds": NaN'),
        json.dumps(to_json(HEALTHY)).replace('"look_seconds": null', '"look_seconds": 1e999, "x": Infinity'),
        "\x00",
    ],
    ids=["nested", "huge", "beyond", "nan", "infinite", "no json"],
)
def test_what_no_host_can_say_is_refused(
    document: Any, nimctl: Nimctl, bare_host: dict[str, str], tmp_path: Path
) -> None:
    done = nimctl("doctor", "demo", "--json", "--facts", written(tmp_path, document), env=bare_host)
    assert (done.code, done.error_id) == (2, "facts-invalid"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("form", [(), ("--verbose",), ("--markdown",), ("--json",)])
@pytest.mark.parametrize("words", ["\x1b[2J\x1b]0;owned\x07", "half \udc80 of it", "\u202eback"])
def test_names_that_a_terminal_would_obey_are_shown(
    form: tuple[str, ...], words: str, nimctl: Nimctl, bare_host: dict[str, str], tmp_path: Path
) -> None:
    document = to_json(host(system={"os_name": f"Linux {words}"}, problems=(f"docker: {words}",)))
    done = nimctl("doctor", "demo", *form, "--facts", written(tmp_path, document), env={**bare_host, "LC_ALL": "C"})
    assert "Traceback" not in done.stderr and "error[" not in done.stderr
    shown = json.dumps(done.document) if form == ("--json",) else done.stdout
    assert "Linux" in shown
    assert not {"\x1b", "\x07", "\x9b"} & set(done.stdout)


def test_saved_facts_hold_no_key_that_stood_in_a_path(
    nimctl: Nimctl, bare_host: dict[str, str], tmp_path: Path
) -> None:
    key, saved = "nvapi-CANARYcanary0123", tmp_path / "saved.json"
    done = nimctl("doctor", "demo", "--cache", str(tmp_path / key), "--save-facts", str(saved), "--json", env=bare_host)
    assert key not in done.stdout + done.stderr + saved.read_text()
    assert json.loads(saved.read_text())["cache"]["path"].endswith("***")
