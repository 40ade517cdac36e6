"""A start from a lock serves the locked weights or none: `NIMCTL_WEIGHTS_DIGEST` against what the source has."""

from pathlib import Path

import pytest

from entrypoint.weights.checkpoint import Checkpoint
from nimctl.core.demo import checkpoint as demo
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import ANONYMOUS, Stop, open_source
from nimctl.core.fetch.manifest import File, content_digest

WRONG = "0" * 64


def checkpoint(uri: str, cache: Path, wanted: str) -> Checkpoint:
    return Checkpoint(uri, cache, ANONYMOUS, stop=Stop(), wanted=wanted)


def refused(one: Checkpoint) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        one.look(lambda _: None)
    assert caught.value.id == "lock-differs"
    return caught.value


def test_other_weights_are_refused_before_any_is_brought(tmp_path: Path) -> None:
    error = refused(checkpoint("builtin://demo", tmp_path, WRONG))
    assert "builtin://demo" in error.message
    assert list(tmp_path.iterdir()) == []


def test_the_locked_weights_pass(tmp_path: Path) -> None:
    wanted = content_digest(open_source("builtin://demo", tmp_path).resolve().files)
    assert checkpoint("builtin://demo", tmp_path, wanted).look(lambda _: None).weights_bytes


def test_a_folder_is_compared_by_names_and_sizes(tmp_path: Path) -> None:
    folder, cache = tmp_path / "model", tmp_path / "cache"
    folder.mkdir()
    demo.write_checkpoint(folder)
    wanted = content_digest(open_source(str(folder), cache).resolve().files)
    checkpoint(str(folder), cache, wanted).look(lambda _: None)
    (folder / "added.json").write_text("{}")
    refused(checkpoint(str(folder), cache, wanted))


def test_the_digest_is_of_every_part_and_of_no_order() -> None:
    one, two = File("a", 1, "sha256:" + "1" * 64), File("b", 2)
    digest = content_digest((one, two))
    assert content_digest((two, one)) == digest
    others = [
        (one,),
        (one, File("b", 3)),
        (one, File("c", 2)),
        (File("a", 1, "sha256:" + "2" * 64), two),
        (File("a", 1), two),
    ]
    assert len({digest, *map(content_digest, others)}) == len(others) + 1
