"""A checkpoint in a folder of its own: links or files, whole or no model, and nobody else's folder."""

import fcntl
import hashlib
from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.fetch import laying
from nimctl.core.fetch.laying import Laid, lay_out
from nimctl.core.fetch.manifest import File, Manifest, revision_of
from nimctl.core.fetch.protocol import Progress
from nimctl.core.fetch.retry import Stop
from nimctl.core.fetch.sources import folder
from tests.lib.checkpoints import read_tree, safetensors
from tests.lib.mounts import mounted
from tests.lib.users import as_user, needs_root, open_folder

FILES = {"config.json": b"{}", "model.safetensors": safetensors(300_000), "sub/tokenizer.json": b"[1]"}


class Place:
    """A snapshot of links, as the cache has it, and a folder to fill."""

    def __init__(self, root: Path) -> None:
        self.source, self.target = root / "cache/snapshots/a", root / "out/store"
        self.blobs = root / "cache/blobs"
        self.blobs.mkdir(parents=True)
        self.manifest = self.write(FILES)
        self.stop = Stop()

    def write(self, content: dict[str, bytes]) -> Manifest:
        for path, data in content.items():
            blob = self.blobs / hashlib.sha256(data).hexdigest()
            blob.write_bytes(data)
            link = self.source / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(blob)
        files = tuple(File(n, len(b), f"sha256:{hashlib.sha256(b).hexdigest()}") for n, b in sorted(content.items()))
        return Manifest("hf://org/name", revision_of(files), files)

    def lay(self, kind: laying.Kind = "files", manifest: Manifest | None = None) -> Laid:
        return lay_out(manifest or self.manifest, self.source, self.target, kind, on_progress=self.see, stop=self.stop)

    def see(self, progress: Progress) -> None:
        pass

    @property
    def content(self) -> dict[str, bytes]:
        return {path: data for path, data in read_tree(self.target).items() if path != "nimctl.manifest.json"}

    @property
    def is_model(self) -> bool:
        try:
            folder.parse(str(self.target)).resolve()
        except NimctlError:
            return False
        return True


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def error_of(place: Place) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        place.lay()
    return caught.value


def test_files_are_real_and_need_no_cache(place: Place) -> None:
    laid = place.lay()
    assert laid.copied + laid.cloned == 3
    for blob in place.blobs.iterdir():
        blob.unlink()
    assert (place.content, place.is_model) == (FILES, True)
    assert names_in(place.target) == ["config.json", "model.safetensors", "nimctl.manifest.json", "sub"]


def test_links_lead_to_where_the_files_really_are(place: Place) -> None:
    assert place.lay("links").linked == 3
    assert (place.target / "model.safetensors").readlink().parent == place.blobs
    assert (place.content, place.is_model) == (FILES, True)
    assert place.lay("links") == Laid(kept=3)


def test_only_what_nobody_edits_is_hard_linked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laying, "_LINKED_FROM", 1000)
    monkeypatch.setattr(laying, "clone", lambda *_: False)
    assert place.lay() == Laid(linked=1, copied=2)
    (place.target / "config.json").write_bytes(b"edited")
    assert (place.source / "config.json").read_bytes() == FILES["config.json"]


def test_a_second_run_keeps_what_is_there(place: Place) -> None:
    place.lay()
    assert place.lay() == Laid(kept=3)
    (place.target / "sub/tokenizer.json").unlink()
    assert (place.lay().kept, place.content) == (2, FILES)


def test_what_was_interrupted_is_no_model_and_is_finished_later(place: Place) -> None:
    (place.source / "model.safetensors").unlink()
    assert error_of(place).id == "cache-not-writable"
    assert not place.is_model
    assert not (place.target / "config.json").exists()
    place.write(FILES)
    assert (place.lay().kept, place.content) == (1, FILES)


def test_a_stop_is_obeyed(place: Place) -> None:
    place.stop.set()
    assert error_of(place).id == "interrupted"
    assert not place.is_model


def test_damaged_files_do_not_get_their_name(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laying, "clone", lambda *_: False)
    blob = (place.source / "model.safetensors").resolve()
    blob.write_bytes(bytes(reversed(blob.read_bytes())))
    error = error_of(place)
    assert error.id == "weights-corrupt"
    assert not (place.target / "model.safetensors").exists()


def test_another_revision_takes_the_place_of_the_one_before(place: Place) -> None:
    place.lay()
    newer = {"config.json": b"[]", "model.safetensors": FILES["model.safetensors"], "other.json": b"1"}
    laid = place.lay(manifest=place.write(newer))
    assert (laid.kept, place.content) == (1, newer)


def of_bytes(*values: int) -> dict[str, bytes]:
    """A revision whose files have the sizes of every other one's."""
    return {"config.json": b"{}", **{f"{name}.safetensors": bytes([value]) * 99 for name, value in enumerate(values)}}


def interrupt(place: Place, manifest: Manifest, path: str) -> None:
    """An update that ends where it comes to `path`."""
    (place.source / path).unlink()
    with pytest.raises(NimctlError):
        place.lay(manifest=manifest)


def test_an_update_that_was_interrupted_goes_on_where_it_ended(place: Place) -> None:
    place.lay(manifest=place.write(of_bytes(1, 2, 3)))
    newer = place.write(of_bytes(4, 5, 6))
    interrupt(place, newer, "2.safetensors")
    assert not place.is_model
    place.write(of_bytes(4, 5, 6))
    laid = place.lay(manifest=newer)
    assert (laid.kept, place.content) == (2, of_bytes(4, 5, 6))
    assert names_in(place.target) == [*(f"{n}.safetensors" for n in range(3)), "config.json", "nimctl.manifest.json"]


def test_what_an_interrupted_update_left_is_not_taken_for_a_third_revision(place: Place) -> None:
    place.lay(manifest=place.write(of_bytes(1, 2, 3)))
    interrupt(place, place.write(of_bytes(4, 5, 6)), "2.safetensors")
    place.lay(manifest=place.write(of_bytes(4, 8)))
    assert place.content == of_bytes(4, 8)


def test_of_files_that_nobody_tells_of_the_size_is_not_enough(place: Place) -> None:
    manifest = place.write(of_bytes(1, 2))
    place.lay(manifest=manifest)
    (place.target / "nimctl.manifest.json").write_text("{")
    (place.target / "1.safetensors").write_bytes(b"x" * 99)
    assert (place.lay(manifest=manifest).kept, place.content) == (0, of_bytes(1, 2))


def test_somebody_elses_folder_is_left_alone(place: Place) -> None:
    place.target.mkdir(parents=True)
    (place.target / "thesis.txt").write_text("done")
    error = error_of(place)
    assert (error.id, "thesis.txt" in error.cause) == ("usage", True)
    assert names_in(place.target) == ["thesis.txt"]


def test_a_folder_in_the_cache_itself_is_refused(place: Place) -> None:
    place.target = place.source / "deeper"
    assert error_of(place).id == "usage"


def test_two_at_once_do_not_mix(place: Place) -> None:
    private = place.target / ".nimctl-partial"
    private.mkdir(parents=True)
    with (private / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert error_of(place).id == "name-in-use"
    assert place.lay().kept == 0


def test_a_folder_that_was_laid_out_can_be_the_source_of_another(place: Place) -> None:
    place.lay()
    again = Place.__new__(Place)
    again.source, again.target, again.stop = place.target, place.target.with_name("second"), Stop()
    again.manifest = folder.parse(str(place.target)).resolve()
    again.lay()
    assert "config.json" in again.content
    assert again.lay().copied == again.lay().cloned == 0


@needs_root
def test_a_full_disk_and_a_closed_folder(place: Place) -> None:
    place.target.mkdir(parents=True)
    with mounted(place.target, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        error = error_of(place)
        assert (error.id, "are needed" in error.cause) == ("disk-full", True)
        assert names_in(place.target) == [".nimctl-partial"]
    with mounted(place.target, "-t", "tmpfs", "-o", "nr_inodes=4", "tmpfs"):
        assert error_of(place).id == "disk-full"
        assert not place.is_model
    with open_folder() as root:
        (root / "closed").mkdir(mode=0o755)

        def lay() -> None:
            lay_out(place.manifest, root / "none", root / "closed", "files", on_progress=lambda _: None, stop=Stop())

        with pytest.raises(NimctlError) as caught:
            as_user(lay)
    assert caught.value.id == "cache-not-writable"
    assert "12345:0" in caught.value.cause
