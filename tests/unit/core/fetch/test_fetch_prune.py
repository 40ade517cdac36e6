"""What is freed, what stays, and that a crash in between leaves nothing that is taken for whole."""

import fcntl
import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths, RepoPaths
from nimctl.core.cache.held import hold
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import snapshots, store, writers
from nimctl.core.fetch.retry import Stop
from nimctl.core.fetch.transfer.partial import boot_id
from nimctl.core.fetch.upkeep import inventory, prune
from tests.lib.checkpoints import CONTENT, TinySource, read_tree

NEW = {**CONTENT, "config.json": b'{"new": 1}'}


def fetch(root: Path, content: dict[str, bytes]) -> str:
    source = TinySource(dict(content))
    manifest = source.resolve()
    store.ensure(source, manifest, CachePaths(root), lambda _: None)
    return manifest.revision


@pytest.fixture
def repo(tmp_path: Path) -> RepoPaths:
    return CachePaths(tmp_path).repo("test/tiny")


def plan(root: Path, **options) -> prune.Plan:
    return prune.make_plan(inventory.take(root), **options)


def run(root: Path, **options) -> prune.Plan:
    held = inventory.take(root)
    return prune.apply(root, held, prune.make_plan(held, **options), Stop())


def abandon(repo: RepoPaths, *, key: str = "aa", size: int = 9000) -> Path:
    folder = repo.partial / "w-dead"
    folder.mkdir(parents=True)
    (folder / ".writer").write_text(boot_id())
    (folder / ".lock").touch()
    (folder / f"{key}.data").write_bytes(bytes(size))
    (folder / f"{key}.journal").write_text("{}\n")
    return folder


def test_a_revision_without_a_name_goes_with_the_blobs_that_only_it_has(tmp_path, repo):
    old, new = fetch(tmp_path, CONTENT), fetch(tmp_path, NEW)
    blobs = {p.name for p in repo.blobs.iterdir()}
    planned = plan(tmp_path)
    assert [(i.kind, i.name) for i in planned.items] == [("revision", old)]
    before = inventory.take(tmp_path).disk
    done = run(tmp_path)
    assert done.items == planned.items
    assert not repo.snapshot(old).exists() and not repo.marker(old).exists()
    assert read_tree(repo.snapshot(new)) == NEW
    assert snapshots.complete(repo, new)
    assert len(blobs - {p.name for p in repo.blobs.iterdir()}) == 1
    assert before - inventory.take(tmp_path).disk >= done.bytes > 0
    assert plan(tmp_path).items == ()
    assert fetch(tmp_path, CONTENT) == old  # nothing that went is taken for verified
    assert read_tree(repo.snapshot(old)) == CONTENT


def test_keep_and_age_hold_back(tmp_path):
    fetch(tmp_path, CONTENT)
    fetch(tmp_path, NEW)
    assert plan(tmp_path, keep=1).items == ()
    assert plan(tmp_path, older_than=prune.DAY).items == ()


def test_of_a_repository_without_names_the_newest_stays(tmp_path, repo):
    fetch(tmp_path, CONTENT)
    new = fetch(tmp_path, NEW)
    repo.ref("main").unlink()
    os.utime(repo.snapshot(new), (2e9, 2e9))
    assert [i.name for i in plan(tmp_path).items] != [new] and len(plan(tmp_path).items) == 1


def test_what_a_live_run_may_use_stays_and_says_by_whom(tmp_path):
    old = fetch(tmp_path, CONTENT)
    fetch(tmp_path, NEW)
    for options in ({"users": {"huggingface/test/tiny": ["kimi"]}}, {"everything_used_by": ["kimi"]}):
        planned = plan(tmp_path, **options)
        assert planned.items == ()
        assert [(k.name, k.why) for k in planned.kept] == [(old, "used by kimi")]
    assert len(plan(tmp_path, users={"huggingface/other/one": ["kimi"]}).items) == 1


def test_a_dead_download_and_blobs_of_no_revision_go(tmp_path, repo):
    fetch(tmp_path, CONTENT)
    abandon(repo)
    (repo.blobs / ("f" * 64)).write_bytes(bytes(5000))
    assert sorted(i.kind for i in plan(tmp_path).items) == ["blob", "partial"]
    run(tmp_path)
    assert [p.name for p in repo.partial.iterdir()] == [".turn"]
    assert not (repo.blobs / ("f" * 64)).exists()
    assert read_tree(next(repo.snapshots.iterdir())) == CONTENT


def test_nothing_of_a_repository_that_is_being_written_goes(tmp_path, repo):
    old = fetch(tmp_path, CONTENT)
    fetch(tmp_path, NEW)
    folder = abandon(repo)
    (repo.blobs / ("f" * 64)).write_bytes(bytes(5000))
    held = inventory.take(tmp_path)
    planned = prune.make_plan(held)
    assert len(planned.items) == 3
    with (folder / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert plan(tmp_path).items == ()
        assert [k.name for k in plan(tmp_path).kept] == [old]
        done = prune.apply(tmp_path, held, planned, Stop())  # it came to life after the plan was made
    assert done.items == ()
    assert (folder / "aa.data").exists() and repo.snapshot(old).exists()


def test_a_turn_that_is_taken_is_respected(tmp_path, repo):
    old = fetch(tmp_path, CONTENT)
    fetch(tmp_path, NEW)
    held = inventory.take(tmp_path)
    assert [i.name for i in prune.make_plan(held).items] == [old]
    with (repo.partial / ".turn").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = prune.apply(tmp_path, held, prune.make_plan(held), Stop())
    assert done.items == () and repo.snapshot(old).exists()


def test_a_revision_that_got_a_name_meanwhile_stays(tmp_path, repo):
    old = fetch(tmp_path, CONTENT)
    fetch(tmp_path, NEW)
    held = inventory.take(tmp_path)
    repo.ref("v1").write_text(old)
    done = prune.apply(tmp_path, held, prune.make_plan(held), Stop())
    assert done.items == () and read_tree(repo.snapshot(old)) == CONTENT


def run_and_die(root: Path, limit: int) -> bool:
    """Prune in a process that dies before its `limit`-th change of the folder; whether it came so far."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    calls = itertools.count(1)

    def counted(real):
        def call(*arguments, **options):
            if next(calls) == limit:
                os._exit(9)
            return real(*arguments, **options)

        return call

    try:
        with pytest.MonkeyPatch.context() as patched:
            for owner, name in ((Path, "unlink"), (Path, "replace"), (os, "rename"), (os, "rmdir"), (os, "unlink")):
                patched.setattr(owner, name, counted(getattr(owner, name)))
            run(root)
    finally:
        os._exit(0)


def test_a_crash_between_any_two_changes_leaves_nothing_that_is_taken_for_whole(tmp_path, repo, monkeypatch):
    monkeypatch.setattr(writers, "_STILL", 0.1)  # whoever died in the moment of its birth is watched for so long
    old, new = fetch(tmp_path, CONTENT), fetch(tmp_path, NEW)
    points = 0
    while run_and_die(tmp_path, points + 1) and points < 100:
        points += 1
        assert read_tree(repo.snapshot(new)) == NEW and snapshots.complete(repo, new)
        if snapshots.complete(repo, old):
            assert read_tree(repo.snapshot(old)) == CONTENT
        run(tmp_path)
        assert plan(tmp_path).items == ()
        assert not repo.snapshot(old).exists()
        assert fetch(tmp_path, CONTENT) == old
        repo.ref("main").write_text(new)
    assert 10 <= points < 100


def test_links_out_of_the_cache_are_never_followed(tmp_path, repo):
    old = fetch(tmp_path, CONTENT)
    fetch(tmp_path, NEW)
    outside = tmp_path / "outside"
    repo.snapshots.rename(outside)
    repo.snapshots.symlink_to(outside)
    done = run(tmp_path)
    assert done.items == () and (outside / old).exists()
    assert "link" in done.kept[-1].why


def test_superseded_compile_caches_go_only_when_old_and_unused(tmp_path):
    for name in ("old", "older", "new"):
        (tmp_path / "engine/0" / name).mkdir(parents=True)
        (tmp_path / "engine/0" / name / "kernel").write_bytes(bytes(5000))
        held = inventory.take(tmp_path)
    ages = {"old": 60, "older": 90, "new": 1}
    held = replace(held, engine=tuple(replace(e, age=ages[e.key] * prune.DAY) for e in held.engine))
    planned = prune.make_plan(held)
    assert sorted(i.name for i in planned.items) == ["old", "older"]
    assert prune.make_plan(held, everything_used_by=["kimi"]).items == ()
    prune.apply(tmp_path, held, planned, Stop())
    assert [p.name for p in (tmp_path / "engine/0").iterdir()] == ["new"]


def test_a_compile_cache_that_a_server_uses_stays_and_counts_as_used(tmp_path):
    for name in ("old", "new"):
        (tmp_path / "engine/0" / name).mkdir(parents=True)
    server = hold(tmp_path / "engine/0/old")
    os.utime(tmp_path / "engine/0/old", (0, 0))
    assert {cache.key: cache.age < prune.DAY for cache in inventory.take(tmp_path).engine} == {"old": True, "new": True}
    held = inventory.take(tmp_path)
    held = replace(held, engine=tuple(replace(e, age=(60 if e.key == "old" else 1) * prune.DAY) for e in held.engine))
    done = prune.apply(tmp_path, held, prune.make_plan(held), Stop())
    assert done.items == () and done.kept[-1].why == "a server uses it"
    server.release()
    assert prune.apply(tmp_path, held, prune.make_plan(held), Stop()).items


def test_stopped_it_says_so(tmp_path):
    fetch(tmp_path, CONTENT)
    held = inventory.take(tmp_path)
    stop = Stop()
    stop.set()
    with pytest.raises(NimctlError) as caught:
        prune.apply(tmp_path, held, prune.Plan(()), stop)
    assert caught.value.id == "interrupted"
