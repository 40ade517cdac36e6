"""Who built the packages, read from folder trees as dpkg leaves them, and from what rpm prints."""

import time
from pathlib import Path

import pytest

from nimctl.core.facts import Package
from nimctl.doctor.observe.packages import look_at_packages, origin_of

DOCKER = "Docker <support@docker.com>"
CONTAINERD = "Containerd team <help@containerd.io>"
NVIDIA = "NVIDIA CORPORATION <cudatools@nvidia.com>"
UBUNTU = "Ubuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>"
DEBIAN_GO = "Debian Go Packaging Team <team+pkg-go@tracker.debian.org>"


def paragraph(name: str, version: str, maintainer: str, status: str = "install ok installed") -> str:
    return (
        f"Package: {name}\nStatus: {status}\nPriority: optional\nMaintainer: {maintainer}\nArchitecture: amd64\n"
        f"Version: {version}\nDescription: something\n Version: this line belongs to the description\n"
    )


def debian_tree(root: Path, *paragraphs: str) -> Path:
    status = root / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text("\n".join(paragraphs))
    return root


def look(root: Path, path: str = "") -> tuple[Package, ...]:
    return look_at_packages(time.monotonic() + 5, {"PATH": path}, root=root)


def test_dockers_own_packages_are_upstream(tmp_path: Path) -> None:
    root = debian_tree(
        tmp_path,
        paragraph("docker-ce", "5:28.5.2-1~debian.12~bookworm", DOCKER),
        paragraph("containerd.io", "1.7.28-2~debian.12~bookworm", CONTAINERD),
        paragraph("bash", "5.2.15-2+b7", "Matthias Klose <doko@debian.org>"),
    )
    assert look(root) == (
        Package("containerd.io", "1.7.28-2~debian.12~bookworm", "dpkg", "upstream"),
        Package("docker-ce", "5:28.5.2-1~debian.12~bookworm", "dpkg", "upstream"),
    )


def test_what_a_distribution_rebuilt_is_said_to_be_its(tmp_path: Path) -> None:
    root = debian_tree(
        tmp_path,
        paragraph("docker.io", "24.0.7-0ubuntu4.1", UBUNTU),
        paragraph("runc", "1.1.5+ds1-1+deb12u1", DEBIAN_GO),
        paragraph("containerd", "1.6.20~ds1-1+deb12u1", DEBIAN_GO),
        paragraph("nvidia-driver-580-server-open", "580.95.05-0ubuntu0.24.04.2", UBUNTU),
    )
    assert {p.origin for p in look(root)} == {"distribution"}
    assert [p.name for p in look(root)] == ["containerd", "docker.io", "nvidia-driver-580-server-open", "runc"]


def test_only_what_is_installed_counts(tmp_path: Path) -> None:
    root = debian_tree(
        tmp_path,
        paragraph("docker.io", "20.10.24+dfsg1-1", DEBIAN_GO, "deinstall ok config-files"),
        paragraph("runc", "1.1.5+ds1-1", DEBIAN_GO, "install ok half-installed"),
        paragraph("docker-ce", "5:28.5.2-1~debian.12~bookworm", DOCKER, "hold ok installed"),
    )
    assert [p.name for p in look(root)] == ["docker-ce"]


def test_without_a_package_database_nothing_is_known_of_who_built_what(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dpkg nor rpm"):
        look(tmp_path)


def test_a_damaged_database_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    root = debian_tree(tmp_path, "Package: runc\n", "\x00\xff nonsense", "Package: docker-ce\nStatus: install ok inst")
    assert look(root) == ()


def rpm_tree(root: Path, answer: str) -> tuple[Path, str]:
    """A root with an rpm database, and a PATH with an `rpm` that prints `answer`."""
    (root / "usr/lib/sysimage/rpm").mkdir(parents=True)
    (root / "usr/lib/sysimage/rpm/rpmdb.sqlite").touch()
    programs = root / "programs"
    programs.mkdir()
    (root / "answer").write_text(answer)
    (programs / "rpm").write_text(f"#!/bin/sh\nwhile read -r line; do printf '%s\\n' \"$line\"; done <{root}/answer\n")
    (programs / "rpm").chmod(0o755)
    return root, str(programs)


def test_rpm_names_the_vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, path = rpm_tree(
        tmp_path,
        "docker-ce\t28.5.2-1.el9\tDocker\tDocker <support@docker.com>\n"
        "containerd.io\t1.7.28-1.el9\t(none)\t(none)\n"
        "nvidia-container-toolkit\t1.19.1-1\tNVIDIA CORPORATION\t(none)\n"
        "runc\t1.2.5-3.el9_6\tRed Hat, Inc.\tRed Hat, Inc. <http://bugzilla.redhat.com/bugzilla>\n"
        "crun\t1.23-1.el9\t(none)\t(none)\n"
        "a line that is no package\n",
    )
    monkeypatch.setenv("PATH", path)  # where programs are looked for
    assert {p.name: p.origin for p in look(root, path)} == {
        "containerd.io": "upstream",
        "crun": None,
        "docker-ce": "upstream",
        "nvidia-container-toolkit": "upstream",
        "runc": "distribution",
    }


def test_an_rpm_that_hangs_is_a_problem_and_not_an_empty_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, path = rpm_tree(tmp_path, "")
    (root / "programs/rpm").write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    monkeypatch.setenv("PATH", path)
    with pytest.raises(TimeoutError, match="rpm"):
        look_at_packages(time.monotonic() + 0.2, {"PATH": path}, root=root)


@pytest.mark.parametrize(
    ("name", "version", "builder", "origin"),
    [
        ("nvidia-driver-580-open", "580.95.05-1ubuntu1", NVIDIA, "upstream"),
        ("nvidia-driver-580-open", "580.95.05-0ubuntu0.22.04.1", UBUNTU, "distribution"),
        ("nvidia-container-toolkit", "1.19.1-1", NVIDIA, "upstream"),
        ("nvidia-container-toolkit", "1.13.5-0lambda1", "Lambda Stack <software@lambdalabs.com>", None),
        ("docker-ce", "5:29.3.1-1~ubuntu.24.04~noble", DOCKER, "upstream"),
        ("docker.io", "20.10.24+dfsg1-1+deb12u1", DEBIAN_GO, "distribution"),
        ("moby-engine", "24.0.9-1.azl3", "Microsoft Corporation", "distribution"),
        ("docker", "25.0.8-1.amzn2023.0.5", "Amazon Linux", "distribution"),
        ("docker-ce", "5:28.0.0-1", "", "upstream"),
        ("runc", "1.3.3", "", None),
    ],
)
def test_origin(name: str, version: str, builder: str, origin: str | None) -> None:
    assert origin_of(name, version, builder) == origin
