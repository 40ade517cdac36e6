"""Verifying: every changed bit is found and named, and a hostile folder is refused."""

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nimctl.bundle import checking, image, model, shelf
from nimctl.bundle.checking import Verified
from nimctl.bundle.shelf import Shelf
from nimctl.cli.bundles.image import full_name
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Stop
from tests.lib import bundles


@pytest.fixture(scope="module", params=[None, bundles.SPLIT], ids=["whole", "split"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    bundles.pack(folder, request.param)
    return folder


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "bundle"))


def verified(*folders: Path) -> Verified:
    return checking.verify_all(Shelf(folders), full_name, on_progress=bundles.ignore, stop=Stop())


def refused(*folders: Path) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        verified(*folders)
    assert caught.value.exit_code == 9
    return caught.value


def files_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_a_whole_bundle_is_whole(folder: Path) -> None:
    assert verified(folder).extra == ()


def test_a_flipped_bit_anywhere_is_found_and_named(folder: Path) -> None:
    dice = random.Random(7)
    for path in files_of(folder):
        for _ in range(3):
            place, bit = dice.randrange(path.stat().st_size), dice.randrange(8)
            flip(path, place, bit)
            error = refused(folder)
            assert error.id == "bundle-damaged"
            assert path.relative_to(folder).as_posix() in error.message + error.cause + " ".join(error.evidence)
            flip(path, place, bit)
    verified(folder)


def flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def test_missing_and_shortened_files_are_named(folder: Path) -> None:
    paths = [path for path in files_of(folder) if "blobs" in path.name or "weights" in str(path)]
    for path in paths:
        content = path.read_bytes()
        path.unlink()
        error = refused(folder)
        assert error.id == "bundle-incomplete"
        assert path.name in " ".join(error.evidence)
        path.write_bytes(content[:-1])
        assert refused(folder).id == "bundle-damaged"
        path.write_bytes(content + b"x")
        assert refused(folder).id == "bundle-damaged"
        path.write_bytes(content)


def test_several_problems_are_all_named(folder: Path) -> None:
    (folder / "weights/config.json").unlink()
    flip(folder / "image/index.json", 3, 1)
    evidence = " ".join(refused(folder).evidence)
    assert "weights/config.json: it is missing" in evidence
    assert "image/index.json: its SHA-256 is" in evidence


def test_missing_documents_tell_what_the_folder_is(folder: Path, tmp_path: Path) -> None:
    (folder / "SHA256SUMS").unlink()
    assert refused(folder).id == "bundle-incomplete"
    (folder / "bundle.json").unlink()
    assert refused(folder).id == "bundle-invalid"
    (folder / ".nimctl-partial").mkdir()
    assert refused(folder).id == "bundle-incomplete"
    assert refused(tmp_path / "nowhere").id == "bundle-invalid"


def test_extra_files_are_told_and_harmless(folder: Path) -> None:
    (folder / "weights/READ ME").touch()
    (folder / "System Volume Information").mkdir()
    (folder / "System Volume Information/x").touch()
    assert verified(folder).extra == ("weights/READ ME",)


def test_links_and_devices_are_refused(folder: Path) -> None:
    place = folder / "weights/config.json"
    content = folder.parent / "elsewhere"
    place.rename(content)
    place.symlink_to(content)
    assert refused(folder).id == "bundle-invalid"
    place.unlink()
    os.mkfifo(place)
    assert refused(folder).id == "bundle-invalid"
    with pytest.raises(NimctlError) as caught:
        Shelf([folder]).small("weights/config.json")
    assert caught.value.id == "bundle-invalid"


def test_a_folder_that_is_a_link_is_refused(folder: Path) -> None:
    (folder / "weights").rename(folder.parent / "weights")
    (folder / "weights").symlink_to(folder.parent / "weights")
    assert refused(folder).id == "bundle-invalid"


def test_a_document_without_end_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "LARGEST", 100)
    assert refused(folder).id == "bundle-invalid"


def test_files_without_end_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "_MOST_FOUND", 5)
    assert refused(folder).id == "bundle-invalid"


def test_media_may_be_spread(folder: Path) -> None:
    second = folder.parent / "second"
    for path in files_of(folder)[3::2]:
        place = second / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    assert refused(folder).id in ("bundle-incomplete", "bundle-damaged")
    verified(folder, second)


def test_parts_that_do_not_belong_together_are_refused(folder: Path) -> None:
    """The sums of everything stand, as whoever tampers writes them anew; the digests do not lead on."""
    whole = Shelf([folder]).bundle
    assert whole.image and whole.weights
    other = "sha256:" + "0" * 64
    for changed in (
        replace(whole, image=replace(whole.image, config=other)),
        replace(whole, image=replace(whole.image, manifest=whole.image.config)),
        replace(whole, image=replace(whole.image, digest=whole.image.config)),
        replace(whole, image=replace(whole.image, size=-5)),
        replace(whole, weights=replace(whole.weights, revision="b" * 40)),
        replace(whole, weights=replace(whole.weights, repo="../../etc")),
        replace(whole, weights=replace(whole.weights, refs=("../x",))),
        replace(whole, weights=replace(whole.weights, size=1)),
        replace(whole, files=tuple(e for e in whole.files if e.path != "weights/config.json")),
        replace(whole, files=tuple(e for e in whole.files if e.path != image.blob_path(whole.image.config))),
    ):
        bundles.rewrite(folder, changed)
        assert refused(folder).id == "bundle-invalid"


def test_a_stop_ends_the_check(folder: Path) -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(NimctlError) as caught:
        checking.verify_all(Shelf([folder]), full_name, on_progress=bundles.ignore, stop=stop)
    assert caught.value.id == "interrupted"


def test_reading_gives_out_no_last_block_of_damaged_content(folder: Path) -> None:
    opened = Shelf([folder])
    entry = opened.bundle.entry("weights/model.safetensors")
    flip(folder / entry.pieces[0].path, 5, 0)
    given = 0
    with pytest.raises(NimctlError) as caught:
        for block in opened.read(entry):
            given += len(block)
    assert caught.value.id == "bundle-damaged"
    assert given < entry.size


def test_the_archive_breaks_off_before_the_image_is_named(folder: Path) -> None:
    opened = Shelf([folder])
    assert opened.bundle.image
    entry = max(opened.bundle.below(model.IMAGE), key=lambda entry: entry.size)
    flip(folder / entry.pieces[-1].path, 0, 0)
    stream = bytearray()
    with pytest.raises(NimctlError) as caught:
        for block in image.archive(opened, lambda _: None):
            stream += block
    assert caught.value.id == "bundle-damaged"
    assert b"manifest.json" not in stream
    assert b"index.json" not in stream
