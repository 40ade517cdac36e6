"""The cache folder, what it holds, and room on the disks."""

import pytest

from nimctl.core.facts import CacheEntry
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import DEMO, DISK, GIB, HEALTHY, KIMI, STORE, host, judge, verdicts

PROCESS = Needs(recipe=KIMI, runtime="process")


def cache(**changes):
    return host(cache=changes)


def test_a_shared_folder_passes():
    (finding,) = judge("cache", HEALTHY)
    assert finding.verdict == "pass"
    assert "/data/nim (1000:0, mode 2770)" in finding.title


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (cache(hangs=True, exists=None), ("fail", "cache-unreachable")),
        (cache(exists=None, problem="Permission denied"), ("unknown", "cache")),
        (cache(exists=False), ("warn", "cache-missing")),
        (cache(exists=False, writable=False), ("fail", "cache-not-writable")),
        (cache(exists=False, problem="/data/nim is not a folder"), ("fail", "cache-not-writable")),
        (cache(uid=0, mode="2750", group_writable=False), ("fail", "cache-not-writable")),
        (cache(uid=0, gid=100, mode="0775", group_writable=False), ("fail", "cache-not-writable")),
        (cache(disk=None), ("pass", "cache")),
        (cache(group_writable=None), ("unknown", "cache")),
        # The page's `chmod -R a+rwxt`: it works, until a container of another user id comes.
        (cache(mode="3770"), ("warn", "cache-sticky")),
        # The container runs as the owner: it can write, but nobody else can.
        (cache(gid=1000, mode="0755", group_writable=False), ("warn", "cache-not-shared")),
        (cache(mode="0770"), ("warn", "cache-not-shared")),
    ],
)
def test_cache_folder(facts, expected):
    assert verdicts(judge("cache", facts)) == [expected]


def test_the_pages_chmod_is_both_sticky_and_not_shared():
    found = verdicts(judge("cache", cache(gid=1000, mode="1777")))
    assert found == [("warn", "cache-sticky"), ("warn", "cache-not-shared")]


def test_the_fix_is_our_own_command_with_the_folder_quoted():
    (finding,) = judge("cache", cache(path="/data/my cache", uid=0, mode="0755", group_writable=False))
    assert finding.fix == "Run `sudo nimctl cache init '/data/my cache'`."


def test_a_read_only_filesystem_cannot_be_written_whatever_the_mode():
    facts = cache(disk=DISK.__class__("/data", read_only=True))
    assert verdicts(judge("cache", facts)) == [("fail", "cache-not-writable")]


@pytest.mark.parametrize("docker", [{"rootless": True}, {"security_options": ("name=userns",)}])
def test_with_mapped_user_ids_permissions_cannot_be_told(docker):
    facts = host(docker=docker, cache={"gid": 100000, "mode": "0755", "group_writable": False})
    assert verdicts(judge("cache", facts)) == [("unknown", "cache")]


@pytest.mark.parametrize(
    ("writable", "expected"),
    [(True, ("pass", "cache")), (False, ("fail", "cache-not-writable")), (None, ("unknown", "cache"))],
)
def test_the_process_runtime_needs_no_group(writable, expected):
    facts = cache(gid=1000, mode="0700", group_writable=False, writable=writable)
    assert verdicts(judge("cache", facts, PROCESS)) == [expected]


ROOTS_WEIGHT = CacheEntry("huggingface/hub/models--a--b/snapshots/1/model.safetensors", 0, 0, "0600")
MY_WEIGHT = CacheEntry("demo/model.safetensors", 1000, 1000, "0600")
TOKEN = CacheEntry("huggingface/token", 0, 0, "0600")
CLOSED_FOLDER = CacheEntry("huggingface/hub/tmp", 0, 0, "0755")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("pass", "cache-entries")]),
        ({"unreadable_entries": (ROOTS_WEIGHT,)}, [("fail", "weights-unreadable")]),
        ({"unreadable_entries": (MY_WEIGHT,)}, [("pass", "cache-entries")]),
        ({"unreadable_entries": (TOKEN,)}, [("warn", "cache-entries-closed")]),
        ({"unwritable_entries": (CLOSED_FOLDER,)}, [("warn", "cache-entries-closed")]),
        (
            {"unreadable_entries": (ROOTS_WEIGHT, TOKEN)},
            [("fail", "weights-unreadable"), ("warn", "cache-entries-closed")],
        ),
        ({"entries_seen": None}, [("unknown", "cache-entries")]),
        ({"exists": False}, [("skip", "cache-entries")]),
    ],
)
def test_what_the_cache_holds(changes, expected):
    assert verdicts(judge("cache-entries", cache(**changes))) == expected


def test_a_file_of_the_container_s_own_user_is_readable_and_of_another_s_is_not():
    facts = cache(unreadable_entries=(MY_WEIGHT,))
    assert judge("cache-entries", facts, Needs(uid=1000))[0].verdict == "pass"
    (finding,) = judge("cache-entries", facts, Needs(uid=12345))
    assert finding.id == "weights-unreadable"
    assert finding.evidence == ("demo/model.safetensors: 1000:1000, mode 0600",)
    assert "12345:0" in finding.title


def test_the_process_runtime_reads_as_its_user():
    facts = cache(unreadable_entries=(ROOTS_WEIGHT,))
    assert verdicts(judge("cache-entries", facts, PROCESS)) == [("skip", "cache-entries")]


def disk(free, *, store=None, device="259:1", entries=0):
    return host(
        cache={
            "disk": DISK.__class__("/data", "xfs", device, 4_000 * GIB, free, 10**9, False),
            "entries_bytes": entries,
        },
        image_store=store,
    )


WEIGHTS = KIMI.weights_bytes
ALL = KIMI.disk_bytes
ROOMY = STORE


@pytest.mark.parametrize(
    ("facts", "needs", "expected"),
    [
        (disk(WEIGHTS, store=ROOMY), Needs(KIMI), [("pass", "disk"), ("pass", "disk")]),
        (disk(WEIGHTS - 1, store=ROOMY), Needs(KIMI), [("fail", "disk-full"), ("pass", "disk")]),
        # On one filesystem the image counts as well, as an estimate.
        (disk(ALL, device=STORE.device, store=ROOMY), Needs(KIMI), [("pass", "disk")]),
        (disk(ALL - 1, device=STORE.device, store=ROOMY), Needs(KIMI), [("warn", "disk-tight")]),
        (disk(ALL - 1, device=STORE.device, store=ROOMY), Needs(KIMI, image_cached=True), [("pass", "disk")]),
        # A warm cache needs no second copy.
        (disk(GIB, store=ROOMY), Needs(KIMI, cached_bytes=WEIGHTS), [("pass", "disk"), ("pass", "disk")]),
        (disk(GIB, store=ROOMY, entries=WEIGHTS), Needs(KIMI), [("warn", "disk-tight"), ("pass", "disk")]),
        (disk(GIB), PROCESS, [("fail", "disk-full")]),
        (disk(WEIGHTS), PROCESS, [("pass", "disk")]),
        (disk(WEIGHTS), Needs(KIMI), [("pass", "disk"), ("unknown", "disk")]),
        (disk(None, store=ROOMY), Needs(KIMI), [("unknown", "disk")]),
        (disk(0, store=ROOMY), Needs(), [("pass", "disk")]),
        (disk(50 * 10**6, store=ROOMY), Needs(DEMO), [("fail", "disk-full"), ("pass", "disk")]),
    ],
)
def test_disk_space(facts, needs, expected):
    assert verdicts(judge("disk", facts, needs)) == expected


def test_a_small_image_store_is_a_warning_of_its_own():
    small = STORE.__class__("/var/lib/docker", "ext4", "259:2", 50 * GIB, 10 * GIB, 10**7, False)
    weights, image = judge("disk", disk(ALL, store=small))
    assert weights.verdict == "pass"
    assert (image.verdict, image.id) == ("warn", "disk-tight")
    assert "10.0 GiB free for images (/var/lib/docker, ext4)" in image.title


def test_a_pool_of_devices_is_one_filesystem():
    one = DISK.__class__("/data", "btrfs", "0:40", 100 * GIB, 50 * GIB)
    two = DISK.__class__("/var/lib/docker", "btrfs", "0:41", 100 * GIB, 50 * GIB)
    needs = Needs(DEMO)
    assert len(judge("disk", host(cache={"disk": one}, image_store=two), needs)) == 1
    assert len(judge("disk", host(cache={"disk": DISK}, image_store=STORE), needs)) == 2


@pytest.mark.parametrize(
    ("inodes", "store_inodes", "expected"),
    [
        (10**6, 10**6, ("pass", "inodes")),
        (None, None, ("pass", "inodes")),
        (999, 10**6, ("fail", "disk-full")),
        (10**6, 99_999, ("warn", "inodes-few")),
    ],
)
def test_inodes(inodes, store_inodes, expected):
    facts = host(
        cache={"disk": DISK.__class__("/data", inodes_free=inodes)},
        image_store=STORE.__class__("/var/lib/docker", inodes_free=store_inodes),
    )
    assert verdicts(judge("inodes", facts)) == [expected]


def test_a_filesystem_that_cannot_be_seen():
    assert verdicts(judge("disk", cache(disk=None))) == [("unknown", "disk")]
    assert verdicts(judge("inodes", cache(disk=None))) == [("unknown", "inodes")]


def test_a_cache_that_hangs_fails_once():
    facts = cache(hangs=True, exists=None, disk=None)
    found = [v for check in ("cache", "cache-entries", "disk", "inodes") for v in verdicts(judge(check, facts))]
    assert [v for v, _ in found] == ["fail", "skip", "skip", "skip"]
