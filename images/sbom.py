"""Write down what the image is made of, as CycloneDX 1.6 in JSON: the same bytes for the same image.

    python sbom.py NAME __INIT__.PY FILE        NAME: of the image; __INIT__.PY: nimctl's, which holds its version

Read from the image itself: dpkg's status, the metadata of installed distributions, and the SHA-256 of every file that
apt and pip fetched, which the steps before kept in /opt/nim/etc. Packages of the base image have no such hash.
https://cyclonedx.org/docs/1.6/json/ https://github.com/package-url/purl-spec/blob/main/PURL-TYPES.rst
"""
# ruff: noqa: T201

import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

STATUS = Path("/var/lib/dpkg/status")
DOCUMENTS = Path("/usr/share/doc")
KEPT = Path("/opt/nim/etc")
SITE = Path("/opt/nim/.venv/lib/python3.11/site-packages")


def debian(status: str, documents: Path, digests: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Debian's installed packages. `digests` are those of the .deb files, by name, version and architecture."""
    for block in status.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", block, re.MULTILINE))
        if fields.get("Status") != "install ok installed":
            continue
        name, version, arch = fields["Package"], fields["Version"], fields["Architecture"]
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={arch}&distro=debian-12"
        yield component(
            name,
            version,
            purl,
            debian_licences(documents / name / "copyright"),
            digests.get(f"{name} {version} {arch}"),
        )


def debian_licences(path: Path) -> list[dict[str, Any]]:
    """The licences that a machine-readable copyright file names; none where it is free text."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if "copyright-format" not in text[:500]:
        return []
    names = {" ".join(found.split()) for found in re.findall(r"^License:[ \t]*(\S.*)$", text, re.MULTILINE)}
    return [{"license": {"name": name}} for name in sorted(names)]


def python(site: Path, digests: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    """The installed distributions; `digests` as settle.py keeps them."""
    for found in metadata.distributions(path=[str(site)]):
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        digest = digests.get(name, {}).get("sha256")
        yield component(name, found.version, f"pkg:pypi/{name}@{quote(found.version)}", python_licences(found), digest)


def python_licences(found: metadata.Distribution) -> list[dict[str, Any]]:
    """The licence as the distribution states it: an SPDX expression, else a name, else its classifiers."""
    about = found.metadata
    if "License-Expression" in about:
        return [{"expression": about["License-Expression"]}]
    stated = about["License"].strip() if "License" in about else ""
    if stated and "\n" not in stated and len(stated) < 100 and stated.upper() != "UNKNOWN":
        return [{"license": {"name": stated}}]
    classes = [line.split(" :: ") for line in about.get_all("Classifier") or () if line.startswith("License ::")]
    return [{"license": {"name": name}} for name in sorted({words[-1] for words in classes})]


def component(name: str, version: str, purl: str, licences: list[dict[str, Any]], digest: str | None) -> dict[str, Any]:
    """One library of the list."""
    about: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if digest:
        about["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return {**about, "licenses": licences} if licences else about


def main() -> int:
    """Write the file; returns 0."""
    name, init, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    version = re.search(r'__version__ = "([^"]+)"', init.read_text(encoding="utf-8"))
    lines = (KEPT / "debs.txt").read_text(encoding="utf-8").splitlines()
    debs = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in lines}
    wheels = json.loads((KEPT / "wheels.json").read_text(encoding="utf-8"))
    found = [*debian(STATUS.read_text(encoding="utf-8"), DOCUMENTS, debs), *python(SITE, wheels)]
    own = component("nimctl", version[1] if version else "0", "", [{"expression": "Apache-2.0"}], None)
    own |= {"bom-ref": "nimctl", "type": "application"}
    del own["purl"]
    parts = sorted({part["bom-ref"]: part for part in (*found, own)}.values(), key=lambda part: str(part["bom-ref"]))
    subject = {"type": "container", "bom-ref": name, "name": name, "version": own["version"]}
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": parts,
        "dependencies": [{"ref": name, "dependsOn": [part["bom-ref"] for part in parts]}],
    }
    target.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    hashed = sum("hashes" in part for part in parts)
    print(f"{len(parts)} components, {hashed} with the hash of the file they came in")
    return 0


if __name__ == "__main__":
    sys.exit(main())
