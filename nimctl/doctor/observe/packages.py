"""The packages that brought the programs which matter here, and who built them."""

import re
import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from nimctl.core.command import run
from nimctl.core.facts import Package
from nimctl.core.facts.packages import DRIVER_PACKAGES

Origin = Literal["upstream", "distribution"]

# Docker's names, Debian's, Fedora's and Microsoft's; NVIDIA's and the distributions' for the driver's parts.
NAMES = (
    "docker-ce",
    "docker.io",
    "docker",
    "docker-engine",
    "moby-engine",
    "containerd.io",
    "containerd",
    "moby-containerd",
    "runc",
    "moby-runc",
    "crun",
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container1",
    "nvidia-fabricmanager*",
    "nvidia-fabric-manager*",
    *DRIVER_PACKAGES,
)
# A host with the driver in dozens of parts is ordinary; more than this is none.
_MOST_PACKAGES = 200
_LARGEST_STATUS = 100_000_000  # bytes; a desktop with 5,000 packages has some 5 MB

# Whose address or company name stands in a package. Docker and NVIDIA sign for what they build themselves, whichever
# repository brings it; everybody else carries fixes back without changing the upstream number.
_UPSTREAM = re.compile(r"@(?:[\w.-]+\.)?(?:docker\.com|containerd\.io|nvidia\.com)\b|^docker\b|^nvidia\b", re.I)
_DISTRIBUTION = re.compile(
    r"debian|ubuntu|canonical|red hat|redhat|fedora|centos|rocky|alma|suse|amazon|oracle|microsoft|azure|mariner|"
    r"rpm ?fusion|negativo17|system76|linux mint|kali|devuan|raspbian|epel",
    re.I,
)
# What distributions append to the number: 1.1.5+ds1-1+deb12u1, 24.0.7-0ubuntu4.1, 580.95.05-0ubuntu0.24.04.2. NVIDIA's
# own packages for Ubuntu end in -1ubuntu1 and Docker's in -1~ubuntu.24.04~noble: those are not meant.
_REBUILT = re.compile(r"\+(?:dfsg|ds\d*\b|deb\d+u|azure)|-\d+deb\d+u|-0ubuntu|-\d+ubuntu\d+\.\d|\.(?:amzn|fc)\d")
# Names that only their maker uses, for databases that do not say who built a package.
_MAKERS_OWN = ("docker-ce", "containerd.io")


def look_at_packages(until: float, environment: Mapping[str, str], *, root: Path = Path("/")) -> tuple[Package, ...]:
    """Installed packages of NAMES in the databases of dpkg and rpm below `root`, in the order of their names.

    dpkg's database is one text file, which is read in some ms; rpm is asked, until `until` of `time.monotonic`.
    Raises TimeoutError when rpm hangs, and OSError when neither has a database (Arch, Alpine, NixOS) or dpkg's cannot
    be read: then nothing is known of who built what.
    """
    status, has_rpm = root / "var/lib/dpkg/status", _has_rpm(root)
    if not has_rpm and not status.exists():
        raise FileNotFoundError("neither dpkg nor rpm has a database here")
    found = {*_dpkg(status), *(_rpm(root, until, environment) if has_rpm else ())}
    return tuple(sorted(found, key=lambda p: (p.name, p.version))[:_MOST_PACKAGES])


def _dpkg(status: Path) -> Iterator[Package]:
    try:
        with status.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LARGEST_STATUS)
    except FileNotFoundError:
        return
    for paragraph in text.split("\n\n"):
        name = _field(paragraph, "Package")
        if not name or not _is_wanted(name):
            continue
        version = _field(paragraph, "Version")
        if version and _field(paragraph, "Status").endswith(" installed"):
            builder = _field(paragraph, "Maintainer") or _field(paragraph, "Origin")
            yield Package(name, version, "dpkg", origin_of(name, version, builder))


def _field(paragraph: str, name: str) -> str:
    found = re.search(rf"^{name}:[ \t]*(.*)$", paragraph, re.MULTILINE)
    return found[1].strip() if found else ""


def _is_wanted(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in NAMES)


def _has_rpm(root: Path) -> bool:
    # Where the database lies since rpm 4.17, and before: https://fedoraproject.org/wiki/Changes/RelocateRPMToUsr
    homes = (root / "usr/lib/sysimage/rpm", root / "var/lib/rpm")
    return any((home / name).exists() for home in homes for name in ("rpmdb.sqlite", "Packages.db", "Packages"))


def _rpm(root: Path, until: float, environment: Mapping[str, str]) -> Iterator[Package]:
    form = r"%{NAME}\t%{VERSION}-%{RELEASE}\t%{VENDOR}\t%{PACKAGER}\n"
    argv = ("rpm", *(() if root == Path("/") else ("--root", str(root))), "-qa", "--qf", form, *NAMES)
    answer = run(argv, timeout=max(0.0, until - time.monotonic()), env=environment)
    if answer.timed_out:
        raise TimeoutError("no answer from rpm")
    for line in answer.stdout.splitlines():
        parts = line.split("\t")
        if len(parts) == 4 and parts[0] and parts[1]:
            name, version, vendor, packager = parts
            builder = vendor if vendor != "(none)" else packager
            yield Package(name, version, "rpm", origin_of(name, version, "" if builder == "(none)" else builder))


def origin_of(name: str, version: str, builder: str) -> Origin | None:
    """Who built a package: by its maintainer or vendor, its version, and its name; None where none of them tells.

    A version in a distribution's form outweighs the rest, since it is the number that is going to be compared.
    """
    if _REBUILT.search(version):
        return "distribution"
    if _UPSTREAM.search(builder):
        return "upstream"
    if _DISTRIBUTION.search(builder):
        return "distribution"
    return "upstream" if name in _MAKERS_OWN else None
