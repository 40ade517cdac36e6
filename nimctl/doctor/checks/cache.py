"""The cache folder: can the container's user, some uid with group 0, write in it?"""

import shlex

from nimctl.core.facts import CacheFacts, HostFacts, WriteTest
from nimctl.doctor.checks.cache_entries import judge_entries, mode_bits, repair
from nimctl.doctor.checks.docker import user_namespaces
from nimctl.doctor.checks.filesystem import keeps_modes, on_nfs
from nimctl.doctor.checks.scope import container_uid
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, unknown, warned
from nimctl.doctor.sizes import human

_SETGID, _STICKY = 0o2000, 0o1000
_FULL = ("No space left on device", "Disk quota exceeded")
_READ_ONLY = "Read-only file system"
_OTHER_FOLDER = "Name another folder with --cache."


def judge_folder(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The folder is there, and can be written by who will write.

    That is `uid:0`, as NIM and OpenShift have it
    (https://docs.openshift.com/container-platform/4.6/openshift_images/create-images.html#support-arbitrary-user-ids):
    the group, handed down by the setgid bit, is what users of different ids share. What a process of that user could
    do when it tried goes before what the mode bits let expect.
    """
    cache = facts.cache
    if cache.hangs:
        return [
            failed(
                "cache",
                "cache-unreachable",
                f"the cache folder {cache.path} does not answer",
                cause="the filesystem below it hangs, as a network mount does whose server is gone",
                fix=f"Check the mount (`findmnt -T {shlex.quote(cache.path)}`), or name another folder with --cache.",
            )
        ]
    if cache.exists is None:
        return [_unseen(facts, needs)]
    if not cache.exists:
        return [_missing(cache)]
    if cache.disk is not None and cache.disk.read_only:
        return [_refused(facts, needs, "it is on a filesystem that is mounted read-only", _OTHER_FOLDER)]
    return _for_process(facts, needs) if needs.runtime == "process" else _for_container(facts, needs)


def write_test(facts: HostFacts, needs: Needs) -> WriteTest | None:
    """The write test where it was made as the user who will write; None where it says nothing about that one."""
    test = facts.cache.write_test
    if test is None or test.ok is None:
        return None
    if needs.runtime == "process":
        return test if test.uid == facts.system.uid else None
    if user_namespaces(facts.docker) or (test.uid, test.gid) != (container_uid(facts, needs), 0):
        return None
    return test


def found_full(facts: HostFacts, needs: Needs) -> bool:
    """Whether a write in the cache was refused for want of room, which this check reports."""
    test = write_test(facts, needs)
    return test is not None and test.ok is False and test.detail in _FULL


def _unseen(facts: HostFacts, needs: Needs) -> Finding:
    cache, title = facts.cache, f"the cache folder {facts.cache.path}"
    problem = cache.problem or "it could not be looked at"
    if facts.system.uid == 0 and "Permission denied" in problem:
        cause = f"root itself is refused ({problem}), as whom Docker mounts: by a server that squashes root, or by FUSE"
        fix = (
            "Let others pass through the folders above it (`chmod o+x`, by their owner), mount FUSE with "
            "`-o allow_other`, or name another folder with --cache."
        )
        return _refused(facts, needs, cause, fix)
    return unknown("cache", title, cause=problem)


def _missing(cache: CacheFacts) -> Finding:
    stated = f"the cache folder {cache.path}"
    if cache.problem:
        title, fix = f"{stated} cannot be written", "Name a folder with --cache."
        return failed("cache", "cache-not-writable", title, cause=cache.problem, fix=fix)
    if cache.writable is False:
        cause = "it does not exist, and this user may not make it"
        return failed("cache", "cache-not-writable", f"{stated} cannot be written", cause=cause, fix=repair(cache))
    return warned(
        "cache",
        "cache-missing",
        f"{stated} does not exist yet",
        cause="nothing has been started with it",
        fix=f"`nimctl run` makes it; or make it now with `nimctl cache init {shlex.quote(cache.path)}`.",
        severity="info",
    )


def _for_process(facts: HostFacts, needs: Needs) -> list[Finding]:
    cache, test = facts.cache, write_test(facts, needs)
    if test is not None and test.ok is False and test.step != "link":
        return [_tried(facts, needs, test)]
    if cache.writable is False:
        cause = f"it belongs to {cache.uid}:{cache.gid} with mode {cache.mode}, and this user is {facts.system.uid}"
        fix = "Name another folder with --cache, or have its owner let you write."
        return [_refused(facts, needs, cause, fix)]
    if cache.writable is None:
        return [unknown("cache", f"the cache folder {cache.path}", cause="its permissions could not be told")]
    return [passed("cache", f"this user can write the cache folder {cache.path}")]


def _for_container(facts: HostFacts, needs: Needs) -> list[Finding]:
    cache, uid, stated = facts.cache, container_uid(facts, needs), _stated(facts.cache)
    if user_namespaces(facts.docker):
        return [unknown("cache", stated, cause="Docker maps user ids, so who may write there cannot be told from here")]
    test = write_test(facts, needs)
    if test is not None and test.ok is False and test.step != "link" and not _of_no_use(test, needs):
        return [_tried(facts, needs, test)]
    if test is None and (doubt := _estimate(facts, needs)) is not None:
        return [doubt]
    findings = _sharing(cache, uid) if keeps_modes(cache.disk) else []
    if test is None:
        tried = ("nobody tried: `sudo nimctl doctor` does as the container's user, `--probe` in a container",)
        return findings or [passed("cache", f"{stated}: group 0 can write, by its mode", evidence=tried)]
    return findings or [passed("cache", f"{stated}: {uid}:0 wrote and removed a file")]


def _of_no_use(test: WriteTest, needs: Needs) -> bool:
    """NVIDIA's images do not know our folder of private caches."""
    theirs = needs.recipe is not None and needs.recipe.runs == "nim"
    return theirs and (test.folder or "").split("/")[0] == "engine"


def _estimate(facts: HostFacts, needs: Needs) -> Finding | None:
    """What owner and mode say where nobody could try; None where they let expect that it works."""
    cache, uid, stated = facts.cache, container_uid(facts, needs), _stated(facts.cache)
    if cache.group_writable is None or cache.mode is None:
        return unknown("cache", stated, cause="its permissions could not be told")
    by_owner = cache.uid == uid and mode_bits(cache.mode) & 0o300 == 0o300
    if not cache.group_writable and not by_owner:
        cause = f"the container's user is {uid}:0, and group 0 may not write there"
        return _refused(facts, needs, cause, repair(cache))
    if on_nfs(cache.disk) and not by_owner:
        cause = "group 0 may write there, but a server that squashes root, as they do by default, takes that group away"
        return unknown("cache", stated, cause=cause, fix="`sudo nimctl doctor` tries it as the container's user.")
    return None


def _tried(facts: HostFacts, needs: Needs, test: WriteTest) -> Finding:
    """The finding for a write test that was refused."""
    cache, folder = facts.cache, test.folder or "."
    place = cache.path if folder == "." else f"{cache.path}/{folder}"
    if test.detail in _FULL:
        free = cache.disk.free if cache.disk is not None else None
        left = "" if free is None else f", {human(free)} are said to be free"
        return failed(
            "cache",
            "disk-full",
            f"the cache folder {cache.path} is full",
            cause=f"a write of 4 KiB was refused: {test.detail}{left}",
            fix=f"Free space or inodes there (`df -h {shlex.quote(place)}`), have the quota raised, or name another "
            "folder with --cache.",
        )
    cause = f"a process of {test.uid}:{test.gid} could not {test.step or 'make'} a file in {place}: {test.detail}"
    if test.detail == _READ_ONLY:
        return _refused(facts, needs, cause, _OTHER_FOLDER)
    if folder.startswith("engine/"):
        fix = f"Remove it, it holds compiled code and nothing else: `sudo rm -r {shlex.quote(place)}`."
        return _refused(facts, needs, cause, fix)
    if on_nfs(cache.disk):
        cause += "; a server that squashes root takes group 0 away" if cache.group_writable else ""
        return _refused(facts, needs, cause, _let_in(cache, test.uid))
    if test.detail == "Operation not permitted":
        fix = f"See the attributes with `lsattr -d {shlex.quote(place)}`, and take `i` and `a` away with `sudo chattr`."
        return _refused(facts, needs, cause, fix)
    return _refused(facts, needs, cause, repair(cache))


def _let_in(cache: CacheFacts, uid: int) -> str:
    """How a user gets in where a server squashes root. The owner does without opening the export to anybody."""
    if cache.uid and cache.uid != uid:
        first = f"Run nimctl as its owner, uid {cache.uid}, who needs no group"
    else:
        first = f"Have uid {uid} own it and write in it on the server"
    return f"{first}; `no_root_squash` on the server helps too, but makes root of every client root there."


def _sharing(cache: CacheFacts, uid: int) -> list[Finding]:
    """What lets one user write and keeps the next one out."""
    stated, mode, findings = _stated(cache), mode_bits(cache.mode), []
    if mode & _STICKY:
        findings.append(
            warned(
                "cache",
                "cache-sticky",
                f"{stated} has the sticky bit",
                cause="containers of another user id can neither replace nor delete what the first one wrote",
                fix=f"{repair(cache)} It takes the bit away.",
            )
        )
    if not cache.group_writable or cache.gid != 0 or not mode & _SETGID:
        findings.append(
            warned(
                "cache",
                "cache-not-shared",
                f"{stated} is not set up to be shared",
                cause=f"it works for uid {uid}; its group is not 0 with setgid, which hands it down to new folders",
                fix=repair(cache),
            )
        )
    if cache.default_acl_writable is False:
        findings.append(
            warned(
                "cache",
                "cache-acl",
                f"{stated} closes new folders to group 0",
                cause="its default access list gives group 0 no write permission, whatever the umask is",
                fix=repair(cache),
            )
        )
    return findings


def _refused(facts: HostFacts, needs: Needs, cause: str, fix: str) -> Finding:
    """Nothing can be written: an error, unless all that has to be there is there and can be read."""
    cache = facts.cache
    held = cache.held
    whole = held is not None and held.complete and needs.recipe is not None and held.source == needs.recipe.weights
    if whole and cache.exists and _may_read(facts, needs):
        return warned(
            "cache",
            "cache-read-only",
            f"{_stated(cache)} cannot be written, and holds the weights",
            cause=f"{cause}; the weights can be served, and what the engine compiles is lost with the container",
            fix=fix,
        )
    stated = _stated(cache) if cache.exists else f"the cache folder {cache.path}"
    return failed("cache", "cache-not-writable", f"{stated} cannot be written", cause=cause, fix=fix)


def _may_read(facts: HostFacts, needs: Needs) -> bool:
    cache, mode = facts.cache, mode_bits(facts.cache.mode)
    uid = facts.system.uid if needs.runtime == "process" else container_uid(facts, needs)
    bits = mode >> 6 if cache.uid == uid else mode >> 3 if cache.gid == 0 else mode
    return uid == 0 or bits & 0o5 == 0o5


def _stated(cache: CacheFacts) -> str:
    return f"cache {cache.path} ({cache.uid}:{cache.gid}, mode {cache.mode})"


CHECKS = (
    Check(
        "cache",
        "storage",
        "the cache folder can be written by the container's user",
        judge_folder,
        (
            "cache-acl",
            "cache-missing",
            "cache-not-shared",
            "cache-not-writable",
            "cache-read-only",
            "cache-sticky",
            "cache-unreachable",
            "disk-full",
        ),
    ),
    Check(
        "cache-entries",
        "storage",
        "the container's user can read what the cache holds",
        judge_entries,
        ("cache-entries-closed", "weights-unreadable"),
    ),
)
