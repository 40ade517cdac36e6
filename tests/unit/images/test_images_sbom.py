"""The list of what an image is made of: Debian's packages, Python's distributions, licences and hashes."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "images/sbom.py"
sbom = runpy.run_path(str(SCRIPT), run_name="sbom")

STATUS = """Package: libstdc++6
Status: install ok installed
Architecture: amd64
Version: 12.2.0-14+deb12u1
Description: a library

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""
FORMAT = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"


def test_installed_packages_have_address_licences_and_the_hash_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "libstdc++6").mkdir()
    text = f"{FORMAT}\n\nFiles: *\nLicense: GPL-3+\n\nFiles: x\nLicense: Expat\n text\n\nLicense: Expat\n"
    (tmp_path / "libstdc++6/copyright").write_text(text)
    (only,) = sbom["debian"](STATUS, tmp_path, {"libstdc++6 12.2.0-14+deb12u1 amd64": "ab" * 32})
    assert only["purl"] == "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"
    assert only["licenses"] == [{"license": {"name": "Expat"}}, {"license": {"name": "GPL-3+"}}]
    assert only["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]


def test_free_text_names_no_licence_and_no_hash_is_invented(tmp_path: Path) -> None:
    (tmp_path / "libstdc++6").mkdir()
    (tmp_path / "libstdc++6/copyright").write_text("This is free software.\nLicense: whatever\n")
    (only,) = sbom["debian"](STATUS, tmp_path, {})
    assert "licenses" not in only and "hashes" not in only


def test_distributions_state_their_licence_in_three_ways(tmp_path: Path) -> None:
    about = {
        "a_b": "License-Expression: Apache-2.0 OR MIT",
        "c": "License: BSD",
        "d": "License: long\n\ttext of a licence\nClassifier: License :: OSI Approved :: MIT License",
        "e": "Summary: nothing is said",
    }
    for name, lines in about.items():
        (tmp_path / f"{name}-1.0+cpu.dist-info").mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0+cpu\n{lines}\n"
        (tmp_path / f"{name}-1.0+cpu.dist-info/METADATA").write_text(text)
    parts = {part["name"]: part for part in sbom["python"](tmp_path, {"a-b": {"sha256": "cd" * 32}})}
    assert parts["a-b"]["licenses"] == [{"expression": "Apache-2.0 OR MIT"}]
    assert parts["a-b"]["purl"] == "pkg:pypi/a-b@1.0%2Bcpu"
    assert parts["a-b"]["hashes"][0]["content"] == "cd" * 32
    assert parts["c"]["licenses"] == [{"license": {"name": "BSD"}}]
    assert parts["d"]["licenses"] == [{"license": {"name": "MIT License"}}]
    assert "licenses" not in parts["e"]
