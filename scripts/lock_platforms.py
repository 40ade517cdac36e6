"""Whether every package of an image's lock has a wheel with a locked hash on each platform of the images.

`scripts/lock` asks this when it writes a lock, with the list of files that uv gets from the index (`pylock.toml`,
https://packaging.python.org/en/latest/specifications/pylock-toml/), and notes the answer in the lock's header; without
a network the note is compared with what the lock holds now.
"""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pip._vendor.packaging.markers import Marker
from pip._vendor.packaging.utils import parse_wheel_filename

MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
MARK = "# wheels with a locked hash: "
PYTHON = 11  # 3.11, that of Debian 12
GLIBC = 36  # 2.36


def fits(name: str, machine: str) -> bool:
    """Whether a wheel of this file name installs under CPython 3.11 on Debian 12 of this machine."""
    for tag in parse_wheel_filename(name)[3]:
        kind = re.fullmatch(r"(cp|py)3(\d*)", tag.interpreter)
        python = bool(kind and int(kind[2] or 0) <= PYTHON)
        exact = tag.interpreter == f"cp3{PYTHON}" and tag.abi == f"cp3{PYTHON}"
        abi = tag.abi == "none" or exact or (tag.abi == "abi3" and tag.interpreter.startswith("cp"))
        many = re.fullmatch(r"manylinux(?:_2_(\d+)|1|2010|2014)_(\w+)", tag.platform)
        old = bool(many and many[2] == machine and int(many[1] or 0) <= GLIBC)
        if python and abi and (old or tag.platform in ("any", f"linux_{machine}")):
            return True
    return False


def lacking(files: Path, lock: str) -> list[str]:
    """What has no wheel, as `package (platform)`. `files` is a pylock.toml for the lock whose text is `lock`."""
    locked = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))
    found = []
    for package in tomllib.loads(files.read_text(encoding="utf-8"))["packages"]:
        wheels = [wheel for wheel in package.get("wheels", ()) if wheel["hashes"]["sha256"] in locked]
        names = [unquote(wheel["url"].rpartition("/")[2]) for wheel in wheels]
        found += [
            f"{package['name']} ({platform})"
            for platform, machine in MACHINES.items()
            if _wanted(package, machine) and not any(fits(name, machine) for name in names)
        ]
    return found


def _wanted(package: dict[str, Any], machine: str) -> bool:
    """Whether the lock installs this package on a Linux of this machine at all."""
    around = {
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": machine,
        "python_version": f"3.{PYTHON}", "python_full_version": f"3.{PYTHON}.2",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip
    return "marker" not in package or Marker(package["marker"]).evaluate(around)


def note(lock: str) -> str:
    """The header's line of a complete lock: its platforms, and the hashes of which that is true."""
    return f"{MARK}{', '.join(MACHINES)} sha256:{_digest(lock)}"


def is_noted(lock: str) -> bool:
    """Whether the header has a note, and it is about what the lock holds."""
    return any(line.startswith(MARK) and line.endswith(_digest(lock)) for line in lock.splitlines()[:5])


def _digest(lock: str) -> str:
    """SHA-256 of the packages, versions and hashes, comments aside."""
    entries = [line.strip(" \\") for line in lock.splitlines() if line.strip() and not line.strip().startswith("#")]
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()
