"""Debian packages without installing them: a private apt state, downloads, and `dpkg -x` into the state folder.

The mirror and its keyring are those of the machine's own sources, as apt itself parsed them. The Docker Engine comes
from Debian 13 (Debian 12's is 20.10, older than the 24.0 that nimctl asks for): its Go binaries need glibc 2.34 and run
on Debian 12. What is written in C comes from the machine's own suite, because Debian 13's builds need glibc 2.38.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .paths import Paths
from .steps import LabError, run, say, step

ENGINE_SUITE = "trixie"
FROM_ENGINE_SUITE = ("docker.io", "docker-cli", "docker-buildx", "containerd", "docker-registry")
FROM_OWN_SUITE = (
    "runc", "tini", "iptables", "libip4tc2", "libip6tc2", "libxtables12", "libmnl0", "libnetfilter-conntrack3",
    "libnfnetlink0", "libnftnl11", "libseccomp2", "libsystemd0",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One Debian repository of the machine: where, which suite (`bookworm-security`), which keyring."""

    uri: str
    suite: str
    keyring: str


def reason_why_not() -> str | None:
    """Why the lab cannot run on this machine, as one sentence with cause and fix; None when it can."""
    if os.geteuid() != 0:
        return "the lab starts a Docker Engine and needs root; run it as root or with sudo"
    if not (shutil.which("dpkg") and shutil.which("apt-get")):
        return "the lab unpacks Debian packages and found no apt-get and dpkg; run it on Debian 12 or 13"
    if codename() not in ("bookworm", "trixie"):
        found = os_release().get("PRETTY_NAME", "another system")
        return f"the lab knows Debian 12 and 13, and this is {found}; run it on one of them"
    return None


def os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines) if value}


def codename() -> str:
    """The Debian suite of this machine, empty where it is not Debian."""
    release = os_release()
    return release.get("VERSION_CODENAME", "") if release.get("ID") == "debian" else ""


def sources() -> list[Source]:
    """The Debian repositories that this machine's apt is configured with, the main one first.

    Raises LabError when none is configured for the machine's own suite.
    """
    wanted = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)"
    listing = run(["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"])
    own = codename()
    found: list[Source] = []
    for line in listing.splitlines():
        uri, suite, component, keyring = line.split("|", 3)
        source = Source(uri, suite, keyring if keyring.startswith("/") else _debian_keyring())
        if component == "main" and suite in (own, f"{own}-updates", f"{own}-security") and source not in found:
            found.append(source)
    found.sort(key=lambda source: source.suite != own)
    if not found or found[0].suite != own:
        raise LabError(f"apt has no source for the suite {own}", "add a Debian mirror to /etc/apt/sources.list.d")
    return found


def unpack_packages(paths: Paths) -> None:
    """Have every package of the lab below `paths.unpacked`. Does nothing when they are there already."""
    stamp = paths.apt / "unpacked"
    wanted = " ".join((ENGINE_SUITE, *FROM_ENGINE_SUITE, codename(), *FROM_OWN_SUITE))
    if stamp.exists() and stamp.read_text() == wanted:
        return
    env = _private_apt(paths)
    with step("apt-get update (private state, the machine's own is not touched)"):
        _update(env)
    debs = paths.apt / "debs"
    shutil.rmtree(debs, ignore_errors=True)
    debs.mkdir(parents=True)
    names = [f"{name}/{ENGINE_SUITE}" for name in FROM_ENGINE_SUITE] + list(FROM_OWN_SUITE)
    with step(f"download {len(names)} packages"):
        run(["sh", "-c", 'cd "$0" && exec apt-get -q download "$@"', debs, *names], env=env)
    with step(f"unpack them into {paths.unpacked}"):
        new, old = (paths.unpacked.with_name(f"{paths.unpacked.name}.{age}") for age in ("new", "old"))
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)
        new.mkdir(parents=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda deb: run(["dpkg", "-x", deb, new]), sorted(debs.glob("*.deb"))))
        # Only now: an engine may run from the old ones, and clients of it start at any time.
        if paths.unpacked.exists():
            paths.unpacked.rename(old)
        new.rename(paths.unpacked)
        shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(debs)
    stamp.write_text(wanted)


def unpack_beside(paths: Paths, *names: str) -> Path:
    """The root of these packages of the machine's own suite, unpacked once, beside what the lab itself needs."""
    root, stamp = paths.state / "beside", paths.apt / "unpacked-beside"
    if stamp.exists() and set(names) <= set(stamp.read_text().split()):
        return root
    debs = paths.apt / "debs-beside"
    debs.mkdir(parents=True, exist_ok=True)
    with step(f"download and unpack {' '.join(names)}"):
        run(["sh", "-c", 'cd "$0" && exec apt-get -q download "$@"', debs, *names], env=_private_apt(paths))
        for deb in sorted(debs.glob("*.deb")):
            run(["dpkg", "-x", deb, root])
    shutil.rmtree(debs)
    stamp.write_text(" ".join(names))
    return root


def install_on_host(commands: dict[str, str]) -> None:
    """Install with apt, on the machine itself, the packages whose command (or file) is missing. Says so.

    `commands` maps a command name or an absolute path to the package that has it.
    """
    missing = sorted({package for name, package in commands.items() if not _there(name)})
    if not missing:
        return
    say(f"installs on this machine, as root: {' '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with step(f"apt-get install {' '.join(missing)}"):
        run(["apt-get", "-q", "update"], env=env)
        run(["apt-get", "-q", "install", "-y", "--no-install-recommends", *missing], env=env)


def _there(name: str) -> bool:
    return Path(name).is_file() if name.startswith("/") else shutil.which(name) is not None


def _private_apt(paths: Paths) -> dict[str, str]:
    """Write a sources list and configuration of our own; returns the environment in which apt uses them."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (paths.apt / folder).mkdir(parents=True, exist_ok=True)
    own = sources()
    engine = Source(own[0].uri, ENGINE_SUITE, own[0].keyring)
    (paths.apt / "sources.list").write_text("".join(deb_line(s) for s in dict.fromkeys([*own, engine])))
    # The machine's own suite wins unless a package is asked for as name/suite.
    (paths.apt / "preferences").write_text(
        "" if codename() == ENGINE_SUITE else f"Package: *\nPin: release n={ENGINE_SUITE}\nPin-Priority: 100\n"
    )
    (paths.apt / "status").touch()
    (paths.apt / "apt.conf").write_text(
        f'Dir::State "{paths.apt}/state";\n'
        f'Dir::State::status "{paths.apt}/status";\n'
        f'Dir::Cache "{paths.apt}/cache";\n'
        f'Dir::Etc::sourcelist "{paths.apt}/sources.list";\n'
        'Dir::Etc::sourceparts "/dev/null";\n'
        f'Dir::Etc::preferences "{paths.apt}/preferences";\n'
        'Dir::Etc::preferencesparts "/dev/null";\n'
        'Acquire::Languages "none";\n'
        'Acquire::Retries "3";\n'
        'APT::Sandbox::User "root";\n'
    )
    return {**os.environ, "APT_CONFIG": str(paths.apt / "apt.conf"), "LC_ALL": "C"}


def _debian_keyring() -> str:
    """Debian's own keyring, which Debian 13 no longer trusts for every source; empty leaves it to apt."""
    folder = Path("/usr/share/keyrings")
    names = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")
    return next((str(folder / name) for name in names if (folder / name).exists()), "")


def deb_line(source: Source) -> str:
    """One line of a sources.list."""
    signed = f"[signed-by={source.keyring}] " if source.keyring else ""
    return f"deb {signed}{source.uri} {source.suite} main\n"


def _update(env: dict[str, str]) -> None:
    try:
        run(["apt-get", "-q", "update", "--error-on=any"], env=env)
    except LabError as error:
        if "NO_PUBKEY" in error.cause:
            raise LabError(
                f"the archive keyring of this machine does not know the suite {ENGINE_SUITE}",
                "run `apt-get install --only-upgrade debian-archive-keyring`",
            ) from None
        raise
