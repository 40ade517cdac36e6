"""What engines write for `docker save`, older and newer, out of a stream."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimctl.bundle import image, journal
from nimctl.bundle.packing import Packer
from nimctl.bundle.saved import Saved, pack_saved
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Stop
from tests.lib.bundles import digest, ignore, image_blobs


def tar(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return buffer.getvalue()


def newer() -> bytes:
    manifest, config, layers = image_blobs()
    blobs = {f"blobs/{digest(b).replace(':', '/')}": b for b in (*layers, config, manifest)}
    index = {"manifests": [{"digest": digest(manifest), "size": len(manifest)}]}
    listed = [{"Config": f"blobs/{digest(config).replace(':', '/')}", "RepoTags": ["x:1"],
               "Layers": [f"blobs/{digest(b).replace(':', '/')}" for b in layers]}]  # fmt: skip
    documents = {"index.json": json.dumps(index).encode(), "manifest.json": json.dumps(listed).encode()}
    return tar({**blobs, **documents, "oci-layout": b"{}"})


def older(repeated: bool = False) -> bytes:
    _, config, layers = image_blobs()
    name = f"{digest(config).removeprefix('sha256:')}.json"
    files = {"aa/layer.tar": layers[0], "aa/VERSION": b"1.0", "aa/json": b"{}", "bb/layer.tar": layers[1], name: config}
    names = ["aa/layer.tar", "bb/layer.tar", *(["cc/layer.tar"] if repeated else [])]
    files["manifest.json"] = json.dumps([{"Config": name, "RepoTags": None, "Layers": names}]).encode()
    return tar(files, {"cc/layer.tar": "../aa/layer.tar"} if repeated else None)


def saved(folder: Path, archive: bytes, passes: list[int] | None = None) -> Saved:
    def stream() -> Iterator[bytes]:
        if passes is not None:
            passes.append(1)
        for at in range(0, len(archive), 10_007):
            yield archive[at : at + 10_007]

    with journal.opened(folder) as notes:
        return pack_saved(stream, Packer(notes, 1, None, ignore, Stop()), folder)


def test_the_newer_form_keeps_its_own_manifest(tmp_path: Path) -> None:
    manifest, config, layers = image_blobs()
    passes: list[int] = []
    found = saved(tmp_path, newer(), passes)
    assert (found.manifest, found.config) == (manifest, digest(config))
    assert set(found.blobs) == {digest(b) for b in (manifest, config, *layers)}
    assert all(digest((tmp_path / image.blob_path(d)).read_bytes()) == d for d in found.blobs)
    assert len(passes) == 1


def test_the_older_form_gets_a_manifest(tmp_path: Path) -> None:
    _, config, layers = image_blobs()
    found = saved(tmp_path, older())
    assert found.config == digest(config)
    assert [layer["digest"] for layer in json.loads(found.manifest)["layers"]] == [digest(b) for b in layers]
    assert all(digest((tmp_path / image.blob_path(d)).read_bytes()) == d for d in found.blobs)


def test_a_layer_that_repeats_is_a_link_in_the_older_form(tmp_path: Path) -> None:
    _, _, layers = image_blobs()
    found = saved(tmp_path, older(repeated=True))
    assert json.loads(found.manifest)["layers"][2]["digest"] == digest(layers[0])


def test_a_cut_stream_leaves_whole_blobs_and_goes_on(tmp_path: Path) -> None:
    archive = newer()
    with pytest.raises(NimctlError):
        saved(tmp_path, archive[: len(archive) // 2])
    assert saved(tmp_path, archive).manifest == image_blobs()[0]


@pytest.mark.parametrize(
    "archive",
    [b"", b"no archive at all" * 1000, tar({}), tar({"manifest.json": b"[]"}), tar({"manifest.json": b"{"}),
     tar({"manifest.json": b'[{"Config": "x", "Layers": []}]'}), tar({"blobs/sha256/" + "0" * 64: b"other"})],
)  # fmt: skip
def test_what_is_no_image_is_refused(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(NimctlError) as caught:
        saved(tmp_path, archive)
    assert caught.value.id in ("image-incompatible", "image-tampered")
