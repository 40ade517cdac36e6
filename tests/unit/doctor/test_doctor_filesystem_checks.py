"""The kinds of filesystem under the cache and the images: the odd ones are named, the usual ones are silent."""

from dataclasses import replace

import pytest

from nimctl.core.facts import WriteTest
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import DEMO, DISK, HEALTHY, KIMI, STORE, host, judge, verdicts

PASS = ("pass", "cache-filesystem")
LINK_REFUSED = WriteTest(1000, 0, ok=False, step="link", folder=".", detail="Operation not permitted", as_root=True)


def cache_on(kind, *options, test=None, **system):
    return host(
        cache={"disk": replace(DISK, filesystem=kind, options=options), "write_test": test},
        system=system,
    )


def found(facts, needs=None):
    return verdicts(judge("cache-filesystem", facts, needs))


@pytest.mark.parametrize(
    "kind",
    ["ext4", "ext3", "xfs", "btrfs", "zfs", "f2fs", "nfs", "nfs4", "lustre", "gpfs", "wekafs", "beegfs", "ceph",
     "fuse.glusterfs", "fuse.juicefs", "virtiofs", "fuse.something-new"],
)  # fmt: skip
@pytest.mark.parametrize("test", [None, WriteTest(1000, 0, ok=True, as_root=True)])
def test_filesystems_of_healthy_hosts_are_silent(kind, test):
    options = ("rw", "relatime", "nosuid", "nodev", "hard", "vers=4.2", "user_id=0", "group_id=0", "allow_other")
    assert found(cache_on(kind, *options, test=test)) == [PASS]


def test_of_a_cluster_filesystem_it_is_noted_that_locks_may_do_nothing():
    assert "locks" in judge("cache-filesystem", cache_on("lustre"))[0].evidence[0]
    assert judge("cache-filesystem", cache_on("ext4"))[0].evidence == ()


@pytest.mark.parametrize(
    ("kind", "id_", "cause"),
    [
        ("tmpfs", "cache-in-memory", "554.3 GiB of weights"),
        ("ramfs", "cache-in-memory", "memory"),
        ("overlay", "cache-in-layer", "lost"),
        ("fuse.gcsfuse", "cache-in-bucket", "bucket"),
        ("fuse.mountpoint-s3", "cache-in-bucket", "bucket"),
        ("fuse.s3fs", "cache-in-bucket", "bucket"),
        ("fuse.blobfuse2", "cache-in-bucket", "bucket"),
        ("9p", "cache-shared-folder", "virtual machine"),
        ("cifs", "cache-without-modes", "owners and modes"),
        ("exfat", "cache-without-modes", "owners and modes"),
        ("vfat", "cache-without-modes", "4 GiB"),
        ("fuseblk", "cache-without-modes", "owners and modes"),
    ],
)
def test_a_kind_that_is_no_place_for_weights_is_a_warning(kind, id_, cause):
    (finding,) = judge("cache-filesystem", cache_on(kind, "allow_other"))
    assert (finding.verdict, finding.id) == ("warn", id_)
    assert kind in finding.title
    assert cause in finding.cause
    assert "--cache" in finding.fix


def test_without_a_model_the_cause_names_no_size():
    (finding,) = judge("cache-filesystem", cache_on("tmpfs"), Needs())
    assert "GiB" not in finding.cause


@pytest.mark.parametrize(
    ("options", "wsl", "id_", "modes"),
    [
        (("aname=drvfs", "uid=1000"), True, "cache-on-windows", True),
        (("aname=drvfs", "metadata"), True, "cache-on-windows", False),
        (("aname=drvfs",), None, "cache-on-windows", True),
        ((), True, "cache-on-windows", True),
        (("trans=virtio",), False, "cache-shared-folder", False),
    ],
)
def test_the_windows_side_of_wsl(options, wsl, id_, modes):
    (finding,) = judge("cache-filesystem", cache_on("9p", *options, wsl=wsl))
    assert finding.id == id_
    assert ("keeps no owners" in finding.cause) is modes


def test_a_mount_from_which_nothing_can_be_loaded():
    (finding,) = judge("cache-filesystem", cache_on("ext4", "rw", "noexec"))
    assert (finding.verdict, finding.id) == ("warn", "cache-noexec")
    assert "remount,exec" in finding.fix


@pytest.mark.parametrize(
    ("needs", "expected"),
    [(Needs(KIMI), "fail"), (Needs(DEMO), "warn"), (Needs(), "warn")],
)
def test_a_filesystem_without_links_cannot_hold_a_snapshot(needs, expected):
    findings = judge("cache-filesystem", cache_on("exfat", test=LINK_REFUSED), needs)
    assert [f.verdict for f in findings] == ["warn", expected]
    assert "Operation not permitted" in findings[1].cause
    assert findings[1].id == ("cache-not-writable" if expected == "fail" else "cache-without-links")


FOR_ONE = ("user_id=1000", "group_id=1000")


@pytest.mark.parametrize(
    ("facts", "needs", "expected"),
    [
        (cache_on("fuse.sshfs", *FOR_ONE), Needs(KIMI), [("fail", "cache-not-writable")]),
        (cache_on("fuse.sshfs", *FOR_ONE, "allow_other"), Needs(KIMI), [PASS]),
        (cache_on("fuse.sshfs", "user_id=1000", "group_id=0"), Needs(KIMI), [PASS]),
        (
            cache_on("fuse.sshfs", "user_id=1000", "group_id=0"),
            Needs(KIMI, uid=12345),
            [("fail", "cache-not-writable")],
        ),
        (cache_on("fuse.sshfs", *FOR_ONE), Needs(KIMI, "process"), [PASS]),
        (host(cache_on("fuse.sshfs", *FOR_ONE), docker={"rootless": True}), Needs(KIMI), [PASS]),
        (cache_on("fuse.sshfs"), Needs(KIMI), [PASS]),
        # Somebody tried: what came of it is said by the check of the folder.
        (cache_on("fuse.sshfs", *FOR_ONE, test=replace(LINK_REFUSED, step="make")), Needs(KIMI), [PASS]),
    ],
)
def test_a_fuse_mount_for_one_user(facts, needs, expected):
    assert found(facts, needs) == expected


@pytest.mark.parametrize("option", ["soft", "softerr"])
def test_a_network_mount_that_gives_up(option):
    assert found(cache_on("nfs4", "rw", option)) == [("warn", "cache-nfs-soft")]
    assert found(cache_on("ext4", "rw", option)) == [PASS]


def test_a_server_that_refuses_root_is_told_and_no_more():
    squashed = WriteTest(1000, 0, ok=True, as_root=False, detail="root itself is refused: Permission denied")
    (finding,) = judge("cache-filesystem", cache_on("nfs4", test=squashed))
    assert (finding.verdict, finding.severity, finding.id) == ("warn", "info", "cache-root-squashed")
    assert finding.fix.startswith("Always run as uid 1000") and "root of every client" in finding.fix
    assert found(cache_on("nfs4", test=replace(squashed, as_root=True))) == [PASS]
    assert found(cache_on("nfs4", test=replace(squashed, as_root=None))) == [PASS]


def test_what_cannot_be_told_about_the_cache():
    unknown = [("unknown", "cache-filesystem")]
    assert found(cache_on(None)) == unknown
    assert found(host(cache={"disk": None})) == unknown
    assert found(host(cache={"disk": None, "hangs": True})) == [("skip", "cache-filesystem")]


def store_on(kind, driver="overlay2"):
    return host(image_store=replace(STORE, filesystem=kind), docker={"storage_driver": driver})


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (HEALTHY, ("pass", "image-filesystem")),
        (store_on("xfs"), ("pass", "image-filesystem")),
        (store_on("btrfs", "btrfs"), ("pass", "image-filesystem")),
        (store_on("zfs", "zfs"), ("pass", "image-filesystem")),
        (store_on("ext4", "overlayfs"), ("pass", "image-filesystem")),
        (store_on("ext4", None), ("pass", "image-filesystem")),
        (store_on("ext4", "vfs"), ("warn", "images-copied")),
        (store_on("ext4", "native"), ("warn", "images-copied")),
        (store_on("overlay", "fuse-overlayfs"), ("warn", "images-on-odd-filesystem")),
        (store_on("nfs4"), ("warn", "images-on-odd-filesystem")),
        (store_on("cifs"), ("warn", "images-on-odd-filesystem")),
        (store_on("tmpfs"), ("warn", "images-in-memory")),
        (store_on(None), ("unknown", "image-filesystem")),
        (host(image_store=None), ("unknown", "image-filesystem")),
        (host(image_store=None, docker={"storage_driver": "vfs"}), ("warn", "images-copied")),
        (host(docker={"state": "unreachable"}), ("skip", "image-filesystem")),
    ],
)
def test_image_store(facts, expected):
    assert verdicts(judge("image-filesystem", facts)) == [expected]


def test_the_process_runtime_has_no_images():
    assert verdicts(judge("image-filesystem", store_on("nfs4"), Needs(KIMI, "process"))) == [
        ("skip", "image-filesystem")
    ]
