"""The generator gives the file that is kept, reads what NVIDIA and OSV write, and refuses what it cannot understand."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "tests/data/advisories"
sys.path.insert(0, str(ROOT / "scripts"))

import generate_advisories  # noqa: E402
from advisory_sources import SourceError, csaf, cvss, osv, shapes  # noqa: E402


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the sources, to be broken."""
    return Path(shutil.copytree(SOURCES, tmp_path / "sources"))


def generate(sources: Path, *more: str) -> int:
    folders = ["--csaf", str(sources / "csaf"), "--osv", str(sources / "osv")]
    files = ["--supplement", str(sources / "supplement.json"), "--output", str(sources / "data.json")]
    return generate_advisories.main([*folders, *files, *more])


def change(path: Path, **parts: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_kept_file_is_what_the_sources_give(capsys):
    assert generate_advisories.main(["--check"]) == 0
    assert "is current" in capsys.readouterr().out


def test_check_notices_a_new_fact_and_writes_nothing(sources, capsys):
    assert generate(sources) == 0
    assert (sources / "data.json").read_text() == generate_advisories.TARGET.read_text()
    rewrite(sources / "osv/runc/GHSA-xr7r-f8xq-vfvv.json", '"1.1.12"', '"1.1.13"')
    before = (sources / "data.json").read_text()
    assert generate(sources, "--check") == 1
    assert "stale" in capsys.readouterr().out
    assert (sources / "data.json").read_text() == before


def test_a_fresh_download_carries_its_date(sources):
    assert generate(sources, "--read", "2027-02-03") == 0
    data = json.loads((sources / "data.json").read_text())
    assert data["read"] == "2027-02-03"
    assert {a["read"] for group in data["components"].values() for a in group} == {"2027-02-03"}


def test_the_prose_of_a_full_bulletin_is_passed_over(sources):
    path = sources / "csaf/2025/5659/5659.json"
    document = json.loads(path.read_text())
    note = {"category": "details", "text": "<div>words &amp; more words</div>", "title": "Summary"}
    document["document"]["notes"] = [note] * 8
    document["document"]["distribution"]["text"] = "words"
    for hole in document["vulnerabilities"]:
        hole["notes"] = [note]
        hole["acknowledgments"] = [{"names": ["somebody"]}]
    path.write_text(json.dumps(document, indent=4))
    # Beside a bulletin lie the same holes as CVE records, and bulletins of other products lie in the same tree.
    (path.parent / "CVE-2025-23266.json").write_text('{"dataType": "CVE_RECORD"}')
    other = path.read_text().replace("NVIDIA Container Toolkit", "NVIDIA Triton Inference Server")
    (sources / "csaf/2025/9999").mkdir()
    (sources / "csaf/2025/9999/9999.json").write_text(other)
    assert generate(sources) == 0
    assert (sources / "data.json").read_text() == generate_advisories.TARGET.read_text()


def test_records_of_one_hole_are_one_advisory(sources):
    ghsa = json.loads((sources / "osv/vllm/GHSA-3ww4-5jv9-j5gm.json").read_text())
    pysec = ghsa | {"id": "PYSEC-2026-2301", "aliases": ["CVE-2026-47155", "GHSA-3ww4-5jv9-j5gm"]}
    pysec["references"] = [{"type": "WEB", "url": "https://example.org/other"}]
    (sources / "osv/vllm/PYSEC-2026-2301.json").write_text(json.dumps(pysec))
    assert generate(sources) == 0
    holes = json.loads((sources / "data.json").read_text())["components"]["vllm"]
    (one,) = [a for a in holes if "CVE-2026-47155" in a["ids"]]
    assert one["ids"] == ["CVE-2026-47155", "GHSA-3ww4-5jv9-j5gm", "PYSEC-2026-2301"]
    assert one["link"].endswith("/GHSA-3ww4-5jv9-j5gm")


def test_a_withdrawn_record_counts_no_more(sources):
    change(sources / "osv/vllm/GHSA-3ww4-5jv9-j5gm.json", withdrawn="2026-12-01T00:00:00Z")
    assert generate(sources) == 0
    assert "CVE-2026-47155" not in (sources / "data.json").read_text()


TOOLKIT = "csaf/2026/5850/5850.json"
DRIVER = "csaf/2026/5821/5821.json"
RECORD = "osv/runc/GHSA-xr7r-f8xq-vfvv.json"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (TOOLKIT, '"All versions up to and including 1.19.0"', '"Most versions near 1.19"', "unknown form"),
        (TOOLKIT, '"name": "1.19.1"', '"name": "the next one"', "unknown form"),
        (TOOLKIT, '"name": "1.19.1"', '"name": "1.18.9"', "affected up to"),
        (TOOLKIT, '"name": "Linux"', '"name": "Plan 9"', "unknown platform"),
        (TOOLKIT, "product_version", "service_pack", "unknown category"),
        (TOOLKIT, '"linux_nvidia_container_toolkit_1_19_1"\n', '"linux_something_else"\n', "not in the product tree"),
        (TOOLKIT, '"known_affected"', '"under_investigation"', "shape of a CSAF"),
        (TOOLKIT, '"NVIDIA Container Toolkit"', '"NVIDIA Container Toolkit Pro"', "unknown product"),
        (TOOLKIT, "}", "", "shape of a CSAF"),
        (DRIVER, '"name": "Linux(R580)"', '"name": "Linux(New Feature Branch)"', "unknown platform"),
        (DRIVER, '"name": "580.159.03"', '"name": "581.01.01"', "no fix for branch 580"),
        (RECORD, '"fixed"', '"limit"', "unknown event"),
        (RECORD, '"ECOSYSTEM"', '"GIT"', "not given as ranges"),
        (RECORD, '"1.1.12"', '"1.0.0-rc9.0.20200122160610-2fc03cc11c77"', "no place in the order"),
        (RECORD, "CVSS:3.1/AV:L", "CVSS:3.1/XY:L", "cannot be read"),
        (RECORD, "CVSS:3.1/", "CVSS:4.0/", "supplement's `cvss4`"),
        (RECORD, '"severity"', '"gravity"', "no CVSS vector"),
        ("osv/moby/GHSA-x86f-5xw2-fm2r.json", "CVE-2026-41567", "CVE-2026-99999", "names no fix"),
        ("supplement.json", '"CVE-2024-0132": [', '"CVE-2024-9999": [', "which no source has"),
        ("supplement.json", "{", "", "Extra data"),
    ],
)
def test_what_is_not_understood_is_refused_and_nothing_is_written(sources, capsys, file, old, new, said):
    rewrite(sources / file, old, new)
    assert generate(sources) == 2
    error = capsys.readouterr().err
    assert said in error
    assert not (sources / "data.json").exists()
    if not file.startswith("supplement"):
        assert Path(file).name in error


def test_a_missing_source_is_no_safe_world(sources, capsys):
    shutil.rmtree(sources / "osv/runc")
    assert generate(sources) == 2
    assert "no advisory for runc" in capsys.readouterr().err
    shutil.rmtree(sources / "csaf")
    (sources / "csaf").mkdir()
    assert generate(sources) == 2
    assert "no JSON file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("phrase", "version", "inclusive"),
    [
        ("All versions up to and including v1.16.1", "1.16.1", True),
        ("All versions up to and including 1.17.7 (CDI mode only for versions prior to 1.17.5)", "1.17.7", True),
        ("All driver versions prior to 580.159.03", "580.159.03", False),
        ("All driver version prior to 570.172.08", "570.172.08", False),
        ("All driver versions prior to 582.53.", "582.53", False),
        ("595.58.03(All versions prior to and including vGPU 20.0)", "595.58.03", True),
        ("560.35.02(All versions prior to and including the September 2024 release)", "560.35.02", True),
        ("Up to and including 1.2", "1.2", True),
        ("Versions before 1.2.3", "1.2.3", False),
        ("1.16.1 and earlier", "1.16.1", True),
        ("1.16.1 or prior versions", "1.16.1", True),
        ("<1.2.3", "1.2.3", False),
        ("<= 1.2.3", "1.2.3", True),
        ("vers:generic/<1.2.3", "1.2.3", False),
        ("  All   versions prior to  1.4.0-rc.3 ", "1.4.0-rc.3", False),
    ],
)
def test_phrases_for_affected_versions(phrase, version, inclusive):
    assert shapes.bound(phrase) == shapes.Bound(version, inclusive)


@pytest.mark.parametrize(
    "phrase",
    [
        "",
        "1.2.3",
        "All versions",
        "All versions prior to X",
        "All driver versions prior 475.06 to for support of GeForce Kepler desktop",
        "All driver versions prior to 582.53 Only GPUs based on the NVIDIA Maxwell architecture are affected.",
        "1.2.3 through 1.4.5",
        "vers:generic/>=1.0|<2.0",
        "All versions up to and including 0.12.1 (only when CDI is enabled)",
    ],
)
def test_other_phrases_are_refused(phrase):
    with pytest.raises(SourceError, match="unknown form"):
        shapes.bound(phrase)


@pytest.mark.parametrize(
    ("phrase", "version"),
    [
        ("1.17.8", "1.17.8"),
        ("v1.17", "1.17"),
        ("595.71.05(vGPU 20.1)", "595.71.05"),
        ("590.48.01(December 2025 Release)", "590.48.01"),
    ],
)
def test_phrases_for_fixed_versions(phrase, version):
    assert shapes.exact(phrase) == version


def test_the_formula_gives_the_scores_that_nvidia_prints():
    seen = 0
    for path in sorted((SOURCES / "csaf").rglob("*.json")):
        for hole in json.loads(path.read_text())["vulnerabilities"]:
            for score in hole["scores"]:
                assert cvss.base_score(score["cvss_v3"]["vectorString"], {}) == score["cvss_v3"]["baseScore"], hole[
                    "cve"
                ]
                seen += 1
    assert seen > 50


def test_every_bulletin_of_the_kept_sources_concerns_us():
    for path in sorted((SOURCES / "csaf").rglob("*.json")):
        assert list(csaf.read(path, "2026-11-22")), path


def test_a_record_of_another_package_is_passed_over(tmp_path):
    record = json.loads((SOURCES / RECORD).read_text())
    record["affected"] = [{"package": {"ecosystem": "Go", "name": "github.com/opencontainers/selinux"}, "ranges": []}]
    path = tmp_path / "one.json"
    path.write_text(json.dumps(record))
    assert osv.read(path, "2026-11-22", {}) is None
