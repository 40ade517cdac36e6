"""Signatures as files: what is written is read again, and what is damaged is refused in words."""

import json
from pathlib import Path

import pytest

from nimctl.core.signatures import MAX_PAYLOAD, Material, read_materials, write_materials

MATERIALS = (
    Material("simple-signing", "sha256:" + "1" * 64, b'{"a": 1}\n', "c2ln", {"chain": "x"}),
    Material("sigstore-bundle", "sha256:" + "2" * 64, b'{"b": 1}'),
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    written = write_materials(tmp_path / "trust", MATERIALS)
    assert read_materials(tmp_path / "trust") == MATERIALS
    assert [path.name for path in written] == ["01.payload.json", "02.sigstore.json", "signatures.json"]
    assert written[0].read_bytes() == MATERIALS[0].payload


def test_no_list_is_no_signature(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_materials(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "pgp"),
        ("payload", "../signatures.json"),
        ("payload", "/etc/passwd"),
        ("payload", ".hidden"),
        ("payload", 7),
        ("subject", None),
        ("signature", []),
        ("annotations", {"a": 1}),
        ("annotations", None),
    ],
)
def test_a_damaged_list_is_refused(name: str, value: object, tmp_path: Path) -> None:
    write_materials(tmp_path, MATERIALS)
    path = tmp_path / "signatures.json"
    document = json.loads(path.read_text())
    document["signatures"][0][name] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"signatures\.json"):
        read_materials(tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk", b"[]", b"{}", b'{"schema": "other/1"}', b"[" * 100_000])
def test_a_list_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "signatures.json").write_bytes(content)
    with pytest.raises(ValueError):
        read_materials(tmp_path)


def test_a_payload_that_grew(tmp_path: Path) -> None:
    write_materials(tmp_path, MATERIALS)
    (tmp_path / "01.payload.json").write_bytes(b"x" * (MAX_PAYLOAD + 1))
    with pytest.raises(ValueError, match="too large"):
        read_materials(tmp_path)
