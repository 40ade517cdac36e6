"""bundle.json: what it says, and what of it is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nimctl.bundle import model
from nimctl.bundle.model import Bundle, Entry, Piece
from nimctl.core.errors import NimctlError
from tests.lib import bundles

SUM = "0" * 64


def bundle(*paths: str, **more: Any) -> Bundle:
    return Bundle("nimctl 1", "tiny", tuple(Entry(path, 1, SUM) for path in paths), **more)


def refusal(changed: Bundle | bytes) -> str:
    with pytest.raises(NimctlError) as caught:
        model.from_bytes(changed if isinstance(changed, bytes) else changed.to_bytes())
    assert caught.value.id == "bundle-invalid"
    return caught.value.cause


def test_a_document_reads_back() -> None:
    whole = bundle("weights/a", "weights/b/c", lock="weights/a", caches=(model.CompileCache("k", ("weights/a",)),))
    assert model.from_bytes(whole.to_bytes()) == whole
    assert next(iter(json.loads(whole.to_bytes()))) == "schema"


@pytest.mark.parametrize(
    "path",
    ["../a", "/etc/passwd", "a/../../b", "a//b", "", ".", "a/", "a\\b", "a\nb", "a\0b", "x" * 300, "bundle.json",
     "SHA256SUMS", "sha256sums", "Bundle.Sig", ".nimctl-partial/journal"],
)  # fmt: skip
def test_names_that_leave_the_folder_or_are_its_own_are_refused(path: str) -> None:
    refusal(bundle(path))
    parts = (Piece("a.part001", 0, SUM), Piece(path, 1, SUM))
    refusal(Bundle("nimctl 1", "tiny", (Entry("a", 1, SUM, parts),)))


@pytest.mark.parametrize("paths", [("a/B", "A/b"), ("a", "a"), ("a", "a/b"), ("e\u0301", "\u00e9")])
def test_names_that_clash_somewhere_are_refused(paths: tuple[str, str]) -> None:
    refusal(bundle(*paths))


def test_a_part_may_not_take_the_place_of_another_file() -> None:
    cut = Entry("a", 2, SUM, (Piece("b", 1, SUM), Piece("c", 1, SUM)))
    refusal(replace(bundle("b"), files=(cut, Entry("b", 1, SUM))))


@pytest.mark.parametrize(
    "change",
    [
        {"files": (Entry("a", 3, SUM, (Piece("a.part001", 1, SUM),)),)},
        {"files": (Entry("a", -1, SUM),)},
        {"files": (Entry("a", 1, "beef"),)},
        {"lock": "nimctl.lock"},
        {"signatures": ("trust/x",)},
        {"keys": ("trust/keys/x",)},
        {"caches": (model.CompileCache("../x"),)},
        {"caches": (model.CompileCache("a/b"),)},
        {"image": model.Image("a", "sha256:1", "sha256:" + SUM, "sha256:" + SUM, "linux/amd64", 1)},
        {"image": model.Image("a", None, "sha256:../../x", "sha256:" + SUM, "linux/amd64", 1)},
        {"schema": "nimctl.bundle/2"},
    ],
)
def test_what_does_not_hold_together_is_refused(change: dict[str, Any]) -> None:
    refusal(replace(bundle("a"), **change))


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}'])
def test_what_is_no_document_is_refused(content: bytes) -> None:
    refusal(content)


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MOST_FILES", 2)
    assert "more than 2" in refusal(bundle("a", "b", "c"))


def test_sums_are_sorted_lines_of_sha256sum() -> None:
    assert model.sums([Piece("b", 1, SUM), Piece("a", 1, SUM)], [("aa", SUM)]).decode().splitlines() == [
        f"{SUM}  a",
        f"{SUM}  aa",
        f"{SUM}  b",
    ]


def test_documents_keep_to_the_published_schema(tmp_path: Path) -> None:
    schema = json.loads((Path(__file__).parents[3] / "docs/schemas/bundle.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    for split in (None, bundles.SPLIT):
        document = json.loads(bundles.pack(tmp_path / str(split), split).to_bytes())
        validator.validate(document)
    document["files"][0]["sha256"] = "beef"
    assert not validator.is_valid(document)
