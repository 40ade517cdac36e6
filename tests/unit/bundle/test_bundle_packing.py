"""Packing: resumed after any cut, never twice, and nothing wrong is named."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nimctl.bundle import journal, packing, planning
from nimctl.bundle.items import Item, of_file
from nimctl.bundle.packing import Packer
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Stop
from tests.lib.bundles import digest, ignore

CONTENT = os.urandom(3_000_000)
MIB = 2**20


class Served:
    """A file that counts what is read of it, and may break off."""

    def __init__(self, content: bytes = CONTENT, block: int = 65536) -> None:
        self.content, self.block = content, block
        self.given = 0
        self.breaks_at: int | None = None
        self.error: BaseException = KeyboardInterrupt()

    def read(self, offset: int) -> Iterator[bytes]:
        for at in range(offset, len(self.content), self.block):
            if self.breaks_at is not None and at >= self.breaks_at:
                raise self.error
            chunk = self.content[at : at + self.block]
            self.given += len(chunk)
            yield chunk

    def item(self, path: str = "image/blob") -> Item:
        return Item(path, len(self.content), self.read, digest(self.content))


def packed(folder: Path, *items: Item, split: int | None = None) -> Packer:
    with journal.opened(folder) as notes:
        packer = Packer(notes, 1, split, ignore, Stop())
        packer.require_room(items)
        packer.pack(items)
    return packer


def test_a_cut_file_goes_on_where_it_ended(tmp_path: Path) -> None:
    served = Served()
    served.breaks_at = 2_000_000
    with pytest.raises(KeyboardInterrupt):
        packed(tmp_path, served.item())
    assert not (tmp_path / "image/blob").exists()
    served.breaks_at = None
    entry = packed(tmp_path, served.item()).entries["image/blob"]
    assert (tmp_path / "image/blob").read_bytes() == CONTENT
    assert f"sha256:{entry.sha256}" == digest(CONTENT)
    assert served.given == len(CONTENT)  # no byte twice


def test_a_finished_file_is_never_read_again(tmp_path: Path) -> None:
    one, two = Served(), Served(os.urandom(1_000_000))
    two.breaks_at = 500_000
    with pytest.raises(KeyboardInterrupt):
        packed(tmp_path, one.item("a"), two.item("b"))
    two.breaks_at = None
    packed(tmp_path, one.item("a"), two.item("b"))
    packer = packed(tmp_path, one.item("a"), two.item("b"))
    assert (one.given, two.given) == (len(CONTENT), 1_000_000)
    assert packer.moved == 0


@pytest.mark.parametrize("cut", [0, 1, MIB - 4096, MIB, 2 * MIB - 8192, 2_990_000])
def test_parts_go_on_too(tmp_path: Path, cut: int) -> None:
    served = Served(block=4096)
    served.breaks_at = cut
    with pytest.raises(KeyboardInterrupt):
        packed(tmp_path, served.item(), split=MIB)
    served.breaks_at = None
    entry = packed(tmp_path, served.item(), split=MIB).entries["image/blob"]
    assert [piece.path for piece in entry.parts] == [f"image/blob.part00{n}" for n in (1, 2, 3)]
    assert all(piece.size < MIB for piece in entry.parts)
    assert b"".join((tmp_path / piece.path).read_bytes() for piece in entry.parts) == CONTENT
    assert served.given == len(CONTENT)


def test_another_size_of_parts_cuts_anew(tmp_path: Path) -> None:
    served = Served()
    packed(tmp_path, served.item(), split=MIB)
    entry = packed(tmp_path, served.item()).entries["image/blob"]
    assert entry.parts == ()
    assert (tmp_path / "image/blob").read_bytes() == CONTENT


@pytest.mark.parametrize("split", [None, MIB])
def test_a_partial_file_that_rotted_is_fetched_anew(tmp_path: Path, split: int | None) -> None:
    served = Served()
    served.breaks_at = 2_000_000
    with pytest.raises(KeyboardInterrupt):
        packed(tmp_path, served.item(), split=split)
    (partial,) = (tmp_path / ".nimctl-partial").glob("*.0")
    with partial.open("r+b") as file:
        file.write(b"rotten")
    served.breaks_at = None
    packed(tmp_path, served.item(), split=split)
    assert served.given >= len(CONTENT)


def test_wrong_bytes_are_named_by_nobody(tmp_path: Path) -> None:
    served = Served()
    item = replace(served.item(), digest=digest(b"other"))
    with pytest.raises(NimctlError) as caught:
        packed(tmp_path, item)
    assert caught.value.id == "image-tampered"
    assert not (tmp_path / "image/blob").exists()
    served.content = CONTENT + b"more"
    with pytest.raises(NimctlError) as caught:
        packed(tmp_path, replace(served.item(), size=len(CONTENT), wrong="weights-corrupt"))
    assert caught.value.id == "weights-corrupt"


def test_a_broken_connection_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_PAUSES", (0.0,) * 8)
    served = Served()
    served.breaks_at = 1_000_000
    served.error = NimctlError("image-pull-failed", "it broke", cause="a reset", fix="Again.")
    with pytest.raises(NimctlError) as caught:
        packed(tmp_path, served.item())
    assert caught.value.id == "image-pull-failed"
    assert served.given < 1_100_000  # eight attempts, and each went on

    def heals(offset: int) -> Iterator[bytes]:
        served.breaks_at = offset + 500_000
        return served.read(offset)

    packed(tmp_path, replace(served.item(), read=heals))
    assert (tmp_path / "image/blob").read_bytes() == CONTENT


def test_weights_on_the_same_disk_are_linked_or_cloned_and_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_LINKED_FROM", MIB)
    origin = tmp_path / "cache" / "model.safetensors"
    origin.parent.mkdir()
    with origin.open("wb") as file:
        file.truncate(MIB)
    item = of_file("weights/model.safetensors", origin, None, "weights-corrupt")
    packer = packed(tmp_path / "bundle", item)
    assert packer.moved == 0
    assert (tmp_path / "bundle/weights/model.safetensors").stat().st_size == MIB
    damaged = replace(item, path="weights/other", digest=digest(b"another"))
    with pytest.raises(NimctlError) as caught:
        packed(tmp_path / "bundle", damaged)
    assert caught.value.id == "weights-corrupt"


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served()
    monkeypatch.setattr(planning, "free_bytes", lambda _: 1_000_000)
    with pytest.raises(NimctlError) as caught:
        packed(tmp_path, served.item())
    assert caught.value.id == "disk-full"
    assert served.given == 0


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(NimctlError) as caught, journal.opened(tmp_path):
        pass
    assert caught.value.id == "usage"
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with journal.opened(tmp_path), pytest.raises(NimctlError) as caught, journal.opened(tmp_path):
        pass
    assert caught.value.id == "name-in-use"
