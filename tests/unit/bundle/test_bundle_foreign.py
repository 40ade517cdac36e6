"""Folders that come from elsewhere: nothing in them is believed, and nothing outside of them is touched."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from nimctl.bundle import journal, planning
from nimctl.bundle.journal import Journal
from nimctl.bundle.packing import Packer
from nimctl.bundle.sealing import seal
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Stop
from tests.lib import bundles

PARTIAL = ".nimctl-partial"


def begun(folder: Path) -> Path:
    (folder / PARTIAL).mkdir(parents=True)
    return folder / PARTIAL


def packer_of(notes: Journal) -> Packer:
    return Packer(notes, 1, None, bundles.ignore, Stop())


def refused(folder: Path) -> str:
    with pytest.raises(NimctlError) as caught, journal.opened(folder):
        pass
    return caught.value.id


def test_names_in_a_journal_that_lead_away_are_not_removed(tmp_path: Path) -> None:
    victim = tmp_path / "precious"
    victim.touch()
    piece = {"path": str(victim), "size": 1, "sha256": "0" * 64}
    line = {"token": "x", "entry": {"path": "a", "size": 1, "sha256": "0" * 64, "parts": [piece]}}
    (begun(tmp_path / "b") / "journal").write_text(json.dumps(line) + "\n")
    with journal.opened(tmp_path / "b") as notes:
        packer = packer_of(notes)
        packer.pack(bundles.items())
        seal(bundles.described(packer), notes)
    assert victim.exists()


@pytest.mark.parametrize("name", [f"{PARTIAL}/journal", "image", "weights/config.json", PARTIAL])
def test_a_folder_with_links_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "b"
    (folder / name).parent.mkdir(parents=True)
    (folder / PARTIAL).mkdir(exist_ok=True) if name != PARTIAL else (tmp_path / "away").mkdir()
    (folder / name).symlink_to(tmp_path / "away")
    assert refused(folder) == "bundle-invalid"


def test_what_becomes_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    item = bundles.items()[-1]
    victim = tmp_path / "victim"
    victim.touch()
    with journal.opened(tmp_path / "b") as notes:
        planning.stem_of(notes, item).with_suffix(".0").symlink_to(victim)
        with pytest.raises(OSError, match="symbolic"):
            packer_of(notes).pack([item])
    assert victim.stat().st_size == 0


def test_a_partial_file_that_is_also_another_s_is_let_go(tmp_path: Path) -> None:
    item = bundles.items()[-1]
    victim = tmp_path / "victim"
    victim.write_bytes(b"{")
    stem = hashlib.sha256(item.path.encode()).hexdigest()[:32]
    (begun(tmp_path / "b") / f"{stem}.0").hardlink_to(victim)
    with journal.opened(tmp_path / "b") as notes:
        packer_of(notes).pack([item])
    assert victim.read_bytes() == b"{"


def test_a_document_of_another_program_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "bundle.json").write_text('{"name": "my web project"}')
    assert refused(tmp_path) == "usage"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.json", "src"]


def test_weights_make_no_room_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "b"
    (begun(folder).parent / "weights").mkdir()
    (folder / "weights/model").write_bytes(os.urandom(4_000_000))
    monkeypatch.setattr(planning, "free_bytes", lambda _: 18_000_000)
    with journal.opened(folder) as notes, pytest.raises(NimctlError) as caught:
        packer_of(notes).require_room([], more=4_000_000)
    assert caught.value.id == "disk-full"
    (folder / "image").mkdir()
    (folder / "weights").rename(folder / "image/blobs")
    with journal.opened(folder) as notes:
        packer_of(notes).require_room([], more=4_000_000)


@pytest.mark.parametrize("split", [None, bundles.SPLIT])
def test_what_was_finished_before_is_hashed_before_it_is_called_complete(tmp_path: Path, split: int | None) -> None:
    bundle = bundles.pack(tmp_path, split)
    (entry,) = (entry for entry in bundle.files if entry.path == "weights/model.safetensors")
    place = tmp_path / entry.pieces[-1].path
    whole = place.read_bytes()
    place.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert bundles.pack(tmp_path, split) == bundle
    assert place.read_bytes() == whole


@pytest.mark.parametrize(
    "line", ["[" * 200_000, "5", '{"note": "asked", "value": 5}', '{"note": [], "value": {}}', "{}"]
)
def test_lines_of_a_journal_that_say_nothing_are_passed_over(tmp_path: Path, line: str) -> None:
    (begun(tmp_path / "b") / "journal").write_text(f"{line}\n")
    with journal.opened(tmp_path / "b") as notes:
        assert notes.note("asked") is None
        packer_of(notes).pack(bundles.items()[:1])
