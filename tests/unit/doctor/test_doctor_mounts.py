"""Looking at filesystems: kind, options without names of servers and users, room, and where images lie."""

from pathlib import Path

import pytest

from nimctl.core.facts import DockerFacts
from nimctl.doctor.observe.mounts import Mount, mount_of
from nimctl.doctor.observe.storage import look_at_disk, look_at_image_store

CANARY = "canary"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rw,nosuid,noexec shared:1 - ext4 /dev/sda1 rw,errors=remount-ro",
         Mount("ext4", ("rw", "nosuid", "noexec", "errors=remount-ro"))),
        (f"rw - nfs4 {CANARY}.example.com:/share/{CANARY} rw,vers=4.2,hard,proto=tcp,addr=192.0.2.1,local_lock=none",
         Mount("nfs4", ("rw", "vers=4.2", "hard", "proto=tcp", "local_lock=none"))),
        (f"rw - cifs //{CANARY}/x rw,username={CANARY},domain={CANARY},uid=1000,file_mode=0755",
         Mount("cifs", ("rw", "uid=1000", "file_mode=0755"))),
        (f"rw,noatime - 9p C:\\134 rw,aname=drvfs;path=C:\\{CANARY};metadata;uid=1000;symlinkroot=/mnt/,trans=fd,rfd=5",
         Mount("9p", ("rw", "noatime", "aname=drvfs", "metadata", "uid=1000", "trans=fd"))),
        (f"rw - fuse.gcsfuse {CANARY}-bucket rw,user_id=1000,group_id=1000,allow_other",
         Mount("fuse.gcsfuse", ("rw", "user_id=1000", "group_id=1000", "allow_other"))),
        ("rw - fuse mountpoint-s3 rw,user_id=0", Mount("fuse.mountpoint-s3", ("rw", "user_id=0"))),
        (f"rw - fuse {CANARY} rw", Mount("fuse", ("rw",))),
        (f"rw - overlay overlay rw,lowerdir=/{CANARY},upperdir=/{CANARY}", Mount("overlay", ("rw",))),
        ("rw - tmpfs tmpfs", Mount("tmpfs", ("rw",))),
    ],
)  # fmt: skip
def test_options_that_tell_how_it_behaves_are_kept_and_names_are_not(tmp_path, line, expected):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"20 1 8:1 / {tmp_path} {line}\n")
    seen = mount_of(tmp_path / "cache", mounts)
    assert seen == expected
    assert CANARY not in str(seen)


@pytest.mark.parametrize("text", ["", "\n", "garbage\n", "1 2 3 - ext4\n", "1 0 8:1 / / - \n", "- - - - - - -\n"])
def test_lines_that_cannot_be_read_are_passed_over(tmp_path, text):
    (tmp_path / "mountinfo").write_text(text)
    assert mount_of(tmp_path, tmp_path / "mountinfo") is None


def test_a_line_without_options_still_names_the_kind(tmp_path):
    (tmp_path / "mountinfo").write_text("1 0 8:1 / / - ext4\n")
    assert mount_of(tmp_path, tmp_path / "mountinfo") == Mount("ext4")


def test_a_filesystem_that_counts_no_blocks_has_no_known_room():
    seen = look_at_disk(Path("/proc"))
    assert (seen.filesystem, seen.total, seen.free) == ("proc", None, None)


@pytest.fixture
def host(tmp_path):
    for name in ("docker/containerd/daemon", "system-containerd", "configured"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def store(host, *, service="system-containerd", config="missing.toml", **docker):
    facts = DockerFacts("ok", **{"data_root": str(host / "docker"), **docker})
    seen = look_at_image_store(facts, host / service, host / config)
    return None if seen is None else seen.path.removeprefix(f"{host}/")


def test_images_lie_in_the_data_root(host):
    assert store(host) == "docker"
    assert store(host, containerd_store=False) == "docker"


def test_with_the_containerd_store_they_lie_in_containerd_s_folder(host):
    assert store(host, containerd_store=True) == "system-containerd"
    assert store(host, containerd_store=True, service="missing") == "docker/containerd/daemon"
    assert store(host, containerd_store=True, rootless=True) == "docker/containerd/daemon"
    (host / "docker" / "containerd" / "daemon").rmdir()
    assert store(host, containerd_store=True, service="missing") == "docker"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('version = 2\nroot = "{host}/configured"\n', "configured"),
        ('root = "relative"\n', "system-containerd"),
        ("root = 7\n", "system-containerd"),
        ("not toml", "system-containerd"),
        ("version = 3\n", "system-containerd"),
    ],
)
def test_containerd_s_configuration_may_name_another_folder(host, text, expected):
    (host / "config.toml").write_text(text.replace("{host}", str(host)))
    assert store(host, containerd_store=True, config="config.toml") == expected


def test_of_a_docker_elsewhere_nothing_is_seen(host):
    assert store(host, data_root=None) is None
    assert store(host, data_root="/not/on/this/host") is None
    assert store(host, kind="desktop") is None
