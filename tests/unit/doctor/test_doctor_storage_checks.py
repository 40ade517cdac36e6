"""The cache folder, what it holds, and room on the disks."""

from dataclasses import replace

import pytest

from nimctl.core.facts import CacheEntry, HeldWeights, ImageFacts, WriteTest
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import DEMO, DISK, GIB, HEALTHY, KIMI, NIM, STORE, host, judge, verdicts

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


# The write test: what the container's user could really do

OK = WriteTest(1000, 0, ok=True, as_root=True)
DENIED = replace(OK, ok=False, step="make", folder=".", detail="Permission denied")
CLOSED = {"uid": 0, "gid": 100, "mode": "0755", "group_writable": False}


def tried(test, **changes):
    return cache(write_test=test, **changes)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (tried(OK), ("pass", "cache")),
        # It goes before what the mode lets expect, both ways.
        (tried(DENIED), ("fail", "cache-not-writable")),
        (tried(OK, **CLOSED), ("warn", "cache-not-shared")),
        (tried(OK, mode=None, group_writable=None), ("warn", "cache-not-shared")),
        (tried(replace(DENIED, folder="huggingface/hub")), ("fail", "cache-not-writable")),
        (tried(replace(DENIED, step="rename")), ("fail", "cache-not-writable")),
        # The kind of filesystem is what is wrong, and its own check says so.
        (tried(replace(DENIED, step="link")), ("pass", "cache")),
        # Nobody could try, or somebody else did: the mode decides.
        (tried(WriteTest(1000, 0, detail="only root can try")), ("pass", "cache")),
        (tried(WriteTest(1000, 0, detail="only root can try"), **CLOSED), ("fail", "cache-not-writable")),
        (tried(replace(DENIED, uid=4242)), ("pass", "cache")),
        (tried(replace(OK, uid=4242), **CLOSED), ("fail", "cache-not-writable")),
        (tried(replace(DENIED, detail="No space left on device")), ("fail", "disk-full")),
        (tried(replace(DENIED, detail="Disk quota exceeded")), ("fail", "disk-full")),
        (tried(replace(DENIED, detail="Read-only file system")), ("fail", "cache-not-writable")),
    ],
)
def test_what_was_tried_goes_before_what_the_mode_says(facts, expected):
    assert verdicts(judge("cache", facts)) == [expected]


def test_a_refusal_names_user_place_and_the_system_s_own_word():
    (finding,) = judge("cache", tried(replace(DENIED, step="rename", folder="huggingface/hub")))
    assert "1000:0 could not rename a file in /data/nim/huggingface/hub: Permission denied" in finding.cause


@pytest.mark.parametrize(
    ("test", "changes", "fix"),
    [
        (DENIED, {}, "sudo nimctl cache init /data/nim"),
        (DENIED, {"acl": True}, "sudo setfacl -R -b /data/nim && sudo nimctl cache init /data/nim"),
        (replace(DENIED, detail="Operation not permitted"), {}, "lsattr -d /data/nim"),
        (replace(DENIED, folder="engine/1000"), {}, "sudo rm -r /data/nim/engine/1000"),
        (replace(DENIED, detail="No space left on device"), {}, "df -h /data/nim"),
    ],
)
def test_the_fix_fits_the_refusal(test, changes, fix):
    (finding,) = judge("cache", tried(test, **changes))
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("owner", "first"),
    [
        (2001, "Run nimctl as its owner, uid 2001"),
        (1000, "Have uid 1000 own it and write in it on the server"),  # it is the owner, and was refused
        (0, "Have uid 1000 own it and write in it on the server"),  # no container runs as root
    ],
)
def test_an_export_is_not_opened_to_every_client_s_root_before_all_else(owner, first):
    (finding,) = judge("cache", tried(DENIED, disk=replace(DISK, filesystem="nfs4"), uid=owner))
    assert finding.fix.startswith(first)
    assert "`no_root_squash` on the server helps too, but makes root of every client root there" in finding.fix


def test_root_who_is_refused_is_not_told_to_open_the_export():
    facts = host(cache(exists=None, problem="/data/nim: Permission denied"), system={"uid": 0})
    (finding,) = judge("cache", facts)
    assert "chmod o+x" in finding.fix and "no_root_squash" not in finding.fix


def test_what_only_modes_say_is_told_with_who_could_try():
    (finding,) = judge("cache", HEALTHY)
    assert finding.title.endswith("group 0 can write, by its mode")
    assert "sudo nimctl doctor" in finding.evidence[0] and "--probe" in finding.evidence[0]
    (finding,) = judge("cache", tried(OK))
    assert finding.title.endswith("1000:0 wrote and removed a file") and finding.evidence == ()


def test_nvidia_s_images_do_not_use_our_private_folder():
    facts = tried(replace(DENIED, folder="engine/1000"))
    assert verdicts(judge("cache", facts, Needs(NIM))) == [("pass", "cache")]
    assert verdicts(judge("cache", facts, Needs(KIMI))) == [("fail", "cache-not-writable")]


def test_a_full_cache_fails_once():
    facts = host(disk(0, store=ROOMY), cache={"write_test": replace(DENIED, detail="No space left on device")})
    found = [v for check in ("cache", "disk", "inodes") for v in verdicts(judge(check, facts))]
    assert found == [("fail", "disk-full"), ("skip", "disk"), ("pass", "disk"), ("skip", "inodes")]


@pytest.mark.parametrize("refusal", [{"disk": replace(DISK, read_only=True)}, {"write_test": DENIED}])
def test_a_cache_that_cannot_be_written_can_serve_what_is_whole(refusal):
    whole = {"held": held(WEIGHTS, complete=True), **refusal}
    assert verdicts(judge("cache", cache(**whole))) == [("warn", "cache-read-only")]
    assert verdicts(judge("cache", cache(**whole), Needs(DEMO))) == [("fail", "cache-not-writable")]
    assert verdicts(judge("cache", cache(**{**whole, "held": held(WEIGHTS)}))) == [("fail", "cache-not-writable")]
    closed = cache(**whole, uid=0, mode="2700", group_writable=False)
    assert verdicts(judge("cache", closed)) == [("fail", "cache-not-writable")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # A server that squashes root takes group 0 away as well, and from here nobody can tell.
        ({"uid": 4242}, ("unknown", "cache")),
        ({}, ("pass", "cache")),  # by its owner
        ({"uid": 4242, "write_test": OK}, ("pass", "cache")),
        ({"uid": 4242, "write_test": DENIED}, ("fail", "cache-not-writable")),
    ],
)
def test_group_0_on_a_network_filesystem(changes, expected):
    assert verdicts(judge("cache", cache(disk=replace(DISK, filesystem="nfs4"), **changes))) == [expected]


def test_root_who_may_not_look_cannot_mount_it_for_a_container():
    facts = cache(exists=None, problem="/data/nim: Permission denied")
    assert verdicts(judge("cache", facts)) == [("unknown", "cache")]
    assert verdicts(judge("cache", host(facts, system={"uid": 0}))) == [("fail", "cache-not-writable")]


@pytest.mark.parametrize(("writable", "expected"), [(True, "pass"), (None, "pass"), (False, "warn")])
def test_a_default_access_list_that_closes_what_is_made_later(writable, expected):
    facts = tried(OK, acl=True, default_acl=writable is not None, default_acl_writable=writable)
    assert judge("cache", facts)[0].verdict == expected


@pytest.mark.parametrize("kind", ["cifs", "vfat", "fuse.gcsfuse"])
def test_modes_that_a_filesystem_cannot_keep_are_not_missed(kind):
    facts = tried(OK, disk=replace(DISK, filesystem=kind), uid=0, gid=1000, mode="0777", unreadable_entries=(TOKEN,))
    assert verdicts(judge("cache", facts)) == [("pass", "cache")]
    assert verdicts(judge("cache-entries", facts)) == [("skip", "cache-entries")]


def test_the_process_runtime_goes_by_a_test_of_its_own_user():
    assert verdicts(judge("cache", tried(DENIED), PROCESS)) == [("fail", "cache-not-writable")]
    assert verdicts(judge("cache", tried(replace(DENIED, uid=12345)), PROCESS)) == [("pass", "cache")]


@pytest.mark.parametrize(
    ("writable", "expected"),
    [(True, ("pass", "cache")), (False, ("fail", "cache-not-writable")), (None, ("unknown", "cache"))],
)
def test_the_process_runtime_needs_no_group(writable, expected):
    facts = cache(gid=1000, mode="0700", group_writable=False, writable=writable)
    assert verdicts(judge("cache", facts, PROCESS)) == [expected]


OWN = "huggingface/hub/models--moonshotai--Kimi-K2.5"
ROOTS_WEIGHT = CacheEntry(f"{OWN}/snapshots/1/model.safetensors", 0, 0, "0600")
MY_WEIGHT = CacheEntry(f"{OWN}/blobs/0123", 1000, 1000, "0600")
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
    assert judge("cache-entries", facts, Needs(KIMI, uid=1000))[0].verdict == "pass"
    (finding,) = judge("cache-entries", facts, Needs(KIMI, uid=12345))
    assert finding.id == "weights-unreadable"
    assert finding.evidence == (f"{OWN}/blobs/0123: 1000:1000, mode 0600",)
    assert "12345:0" in finding.title


def weights_at(address):
    return Needs(replace(KIMI, weights=address))


@pytest.mark.parametrize(
    ("path", "needs", "fails"),
    [
        (OWN, Needs(KIMI), True),
        (f"{OWN}/snapshots", Needs(KIMI), True),
        (f"{OWN}/blobs/0123", Needs(KIMI), True),
        (f"{OWN}/blobs/0123", weights_at("hf://moonshotai/Kimi-K2.5:main?file=a/b"), True),
        (f"{OWN}/blobs/0123", weights_at("hf://moonshotai/Kimi-K2.5@0123abcd"), True),
        ("models--moonshotai--Kimi-K2.5/blobs/0123", Needs(KIMI), True),  # the Hub's own cache folder was named
        ("ngc/hub/models--nim--moonshotai--kimi-k2_5/blobs/1", weights_at("ngc://nim/moonshotai/kimi-k2.5:1"), True),
        ("huggingface/hub/models--nimctl--demo/snapshots/1/model.safetensors", Needs(DEMO), True),
        # Not what this run reads: another model, one whose name begins alike, what has not come whole, what guards it.
        ("huggingface/hub/models--a--b/snapshots/1/model.safetensors", Needs(KIMI), False),
        (f"{OWN}-Instruct/blobs/0123", Needs(KIMI), False),
        (f"{OWN}/blobs/0123.incomplete", Needs(KIMI), False),
        (f"{OWN}/.partial/writer/0123", Needs(KIMI), False),
        (f"{OWN}/.complete/1.json", Needs(KIMI), False),
        ("huggingface/hub/.locks/models--moonshotai--Kimi-K2.5/0123.lock", Needs(KIMI), False),
        # Which folder is meant is not known.
        (f"{OWN}/blobs/0123", Needs(), False),
        (f"{OWN}/blobs/0123", Needs(NIM), False),
        (f"{OWN}/blobs/0123", weights_at("s3://bucket/kimi"), False),
    ],
)
def test_only_what_the_run_itself_reads_keeps_it_from_starting(path, needs, fails):
    facts = cache(unreadable_entries=(CacheEntry(path, 1001, 1001, "0600"),))
    expected = ("fail", "weights-unreadable") if fails else ("warn", "cache-entries-closed")
    assert verdicts(judge("cache-entries", facts, needs)) == [expected]


def test_the_process_runtime_reads_as_its_user():
    facts = cache(unreadable_entries=(ROOTS_WEIGHT,))
    assert verdicts(judge("cache-entries", facts, PROCESS)) == [("skip", "cache-entries")]


def held(size, *, complete=False):
    return HeldWeights(KIMI.weights, size, complete)


HERE = ImageFacts("x", present=True)


def disk(free, *, store=None, device="259:1", entries=0, held=None, image=None):
    return host(
        cache={
            "disk": DISK.__class__("/data", "xfs", device, 4_000 * GIB, free, 10**9, False),
            "entries_bytes": entries,
            "held": held,
        },
        image_store=store,
        image=image,
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
        (disk(ALL - 1, device=STORE.device, store=ROOMY, image=HERE), Needs(KIMI), [("pass", "disk")]),
        # A warm cache needs no second copy.
        (disk(GIB, store=ROOMY, held=held(WEIGHTS)), Needs(KIMI), [("pass", "disk"), ("pass", "disk")]),
        (disk(GIB, store=ROOMY, held=held(0, complete=True)), Needs(KIMI), [("pass", "disk"), ("pass", "disk")]),
        (disk(GIB, store=ROOMY, held=held(WEIGHTS - GIB)), Needs(KIMI), [("pass", "disk"), ("pass", "disk")]),
        (disk(GIB, store=ROOMY, held=held(WEIGHTS - GIB - 1)), Needs(KIMI), [("fail", "disk-full"), ("pass", "disk")]),
        # What was counted for another model says nothing, and what was counted for this one leaves no hope.
        (
            disk(GIB, store=ROOMY, held=HeldWeights("hf://a/b", WEIGHTS)),
            Needs(KIMI),
            [("fail", "disk-full"), ("pass", "disk")],
        ),
        (disk(GIB, store=ROOMY, held=held(0), entries=WEIGHTS), Needs(KIMI), [("fail", "disk-full"), ("pass", "disk")]),
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


def test_an_image_that_is_here_needs_no_room():
    small = STORE.__class__("/var/lib/docker", "ext4", "259:2", 50 * GIB, 10 * GIB, 10**7, False)
    facts = disk(ALL, store=small)
    assert ("warn", "disk-tight") in verdicts(judge("disk", facts))
    assert ("warn", "disk-tight") in verdicts(judge("disk", host(facts, image=ImageFacts("x", present=None))))
    assert verdicts(judge("disk", host(facts, image=HERE))) == [("pass", "disk")]


FEW = ("warn", "inodes-few")
FINE = ("pass", "inodes")


@pytest.mark.parametrize(
    ("inodes", "store_inodes", "store_device", "expected"),
    [
        (10**6, 10**6, "8:2", [FINE]),
        (None, None, "8:2", [FINE]),
        (999, 10**6, "8:2", [("fail", "disk-full")]),
        (10**6, 99_999, "8:2", [FINE, FEW]),
        (999, 99_999, "8:2", [("fail", "disk-full"), FEW]),
        # On one filesystem the needs add up.
        (101_000, 101_000, "8:1", [FINE]),
        (100_999, 100_999, "8:1", [FEW]),
        (999, 999, "8:1", [("fail", "disk-full")]),
    ],
)
def test_inodes(inodes, store_inodes, store_device, expected):
    facts = host(
        cache={"disk": DISK.__class__("/data", device="8:1", inodes_free=inodes)},
        image_store=STORE.__class__("/var/lib/docker", device=store_device, inodes_free=store_inodes),
    )
    assert verdicts(judge("inodes", facts)) == expected


def test_inodes_of_the_image_store_count_only_where_an_image_is_to_come():
    facts = host(image_store=STORE.__class__("/var/lib/docker", inodes_free=0))
    assert verdicts(judge("inodes", facts)) == [FINE, FEW]
    assert verdicts(judge("inodes", host(facts, image=HERE))) == [FINE]
    assert verdicts(judge("inodes", facts, PROCESS)) == [FINE]


def test_a_filesystem_that_cannot_be_seen():
    assert verdicts(judge("disk", cache(disk=None))) == [("unknown", "disk")]
    assert verdicts(judge("inodes", cache(disk=None))) == [("unknown", "inodes")]


def test_a_cache_that_hangs_fails_once():
    facts = cache(hangs=True, exists=None, disk=None)
    found = [v for check in ("cache", "cache-entries", "disk", "inodes") for v in verdicts(judge(check, facts))]
    assert [v for v, _ in found] == ["fail", "skip", "skip", "skip"]
