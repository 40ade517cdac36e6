"""The cache folder: can the container's user, some uid with group 0, write in it and read what is there?"""

import re
import shlex

from nimctl.core.facts import CacheEntry, CacheFacts, HostFacts
from nimctl.doctor.checks.docker import user_namespaces
from nimctl.doctor.checks.scope import container_uid
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned

_SETGID, _STICKY = 0o2000, 0o1000
# Suffixes of weight files, and the folder names of the Hugging Face layout, in which blobs have no suffix.
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt")
_CHECKPOINT = "models--"


def judge_folder(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The folder is there, and can be written by who will write."""
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
        return [unknown("cache", f"the cache folder {cache.path}", cause=cache.problem or "it could not be looked at")]
    if not cache.exists:
        return [_missing(cache)]
    if cache.disk is not None and cache.disk.read_only:
        return [_refused(cache, "it is on a filesystem that is mounted read-only", "Name another folder with --cache.")]
    return _for_process(facts) if needs.runtime == "process" else _for_container(facts, container_uid(facts, needs))


def _missing(cache: CacheFacts) -> Finding:
    if cache.problem:
        return _refused(cache, cache.problem, "Name a folder with --cache.")
    if cache.writable is False:
        return _refused(cache, "it does not exist, and this user may not make it", f"Run `sudo {_init(cache)}`.")
    return warned(
        "cache",
        "cache-missing",
        f"the cache folder {cache.path} does not exist yet",
        cause="nothing has been started with it",
        fix=f"`nimctl run` makes it; or make it now with `{_init(cache)}`.",
        severity="info",
    )


def _for_process(facts: HostFacts) -> list[Finding]:
    cache = facts.cache
    if cache.writable is False:
        cause = f"it belongs to {cache.uid}:{cache.gid} with mode {cache.mode}, and this user is {facts.system.uid}"
        return [_refused(cache, cause, "Name another folder with --cache, or have its owner let you write.")]
    if cache.writable is None:
        return [unknown("cache", f"the cache folder {cache.path}", cause="its permissions could not be told")]
    return [passed("cache", f"this user can write the cache folder {cache.path}")]


def _for_container(facts: HostFacts, uid: int) -> list[Finding]:
    cache = facts.cache
    stated = f"the cache folder {cache.path} ({cache.uid}:{cache.gid}, mode {cache.mode})"
    if user_namespaces(facts.docker):
        return [unknown("cache", stated, cause="Docker maps user ids, so who may write there cannot be told from here")]
    if cache.group_writable is None or cache.mode is None:
        return [unknown("cache", stated, cause="its permissions could not be told")]
    mode = _bits(cache.mode)
    by_owner = cache.uid == uid and mode & 0o300 == 0o300
    if not cache.group_writable and not by_owner:
        cause = f"the container's user is {uid}:0, and group 0 may not write there"
        return [_refused(cache, cause, f"Run `sudo {_init(cache)}`.", stated)]
    findings = []
    if mode & _STICKY:
        findings.append(
            warned(
                "cache",
                "cache-sticky",
                f"{stated} has the sticky bit",
                cause="containers of another user id can neither replace nor delete what the first one wrote",
                fix=f"Run `sudo {_init(cache)}`, which takes it away.",
            )
        )
    if not cache.group_writable or cache.gid != 0 or not mode & _SETGID:
        findings.append(
            warned(
                "cache",
                "cache-not-shared",
                f"{stated} works for uid {uid}, and is not set up to be shared",
                cause="its group is not 0 with the setgid bit, which hands the group down to new folders",
                fix=f"Run `sudo {_init(cache)}`.",
            )
        )
    return findings or [passed("cache", f"{stated} can be written by any user with group 0")]


def judge_entries(facts: HostFacts, needs: Needs) -> list[Finding]:
    """What is in the cache can be read and replaced by the container's user."""
    title, cache = "what the cache holds", facts.cache
    if not cache.exists or cache.hangs:
        return [skipped("cache-entries", title, "there is no cache folder to look into")]
    if needs.runtime == "process":
        return [skipped("cache-entries", title, "the process runtime reads as this user")]
    if user_namespaces(facts.docker):
        return [skipped("cache-entries", title, "Docker maps user ids")]
    if cache.entries_seen is None:
        return [unknown("cache-entries", title, cause="the folder could not be looked through")]
    uid = container_uid(facts, needs)
    unreadable = [e for e in cache.unreadable_entries if not _owner_may(e, uid, 0o400)]
    weights = [e for e in unreadable if e.path.endswith(_WEIGHTS) or _CHECKPOINT in e.path]
    unwritable = [e for e in cache.unwritable_entries if not _owner_may(e, uid, 0o300)]
    fix = f"Run `sudo {_init(cache)}`."
    findings = []
    if weights:
        findings.append(
            failed(
                "cache-entries",
                "weights-unreadable",
                f"the container's user {uid}:0 cannot read {_count(weights)} of the weights",
                cause="files were written with mode 0600, as safetensors does, or by a user of another group; the "
                "engine would say that they do not exist",
                fix=fix,
                evidence=_shown(weights),
            )
        )
    if others := [e for e in (*unreadable, *unwritable) if e not in weights]:
        findings.append(
            warned(
                "cache-entries",
                "cache-entries-closed",
                f"the container's user {uid}:0 cannot use {_count(others)} in the cache",
                cause="folders or files were made by a user of another group, or with a narrow umask",
                fix=fix,
                evidence=_shown(others),
            )
        )
    seen = f"{cache.entries_seen} entries of the cache can be used by {uid}:0"
    return findings or [passed("cache-entries", seen)]


def _owner_may(entry: CacheEntry, uid: int, bits: int) -> bool:
    return entry.uid == uid and _bits(entry.mode) & bits == bits


def _bits(mode: str) -> int:
    """Octal text as bits; none for text that is not octal, which only a file written by hand can hold."""
    return int(mode, 8) if re.fullmatch("[0-7]{1,7}", mode) else 0


def _count(entries: list[CacheEntry]) -> str:
    return entries[0].path if len(entries) == 1 else f"{len(entries)} files or folders"


def _shown(entries: list[CacheEntry]) -> tuple[str, ...]:
    return tuple(f"{e.path}: {e.uid}:{e.gid}, mode {e.mode}" for e in entries[:8])


def _refused(cache: CacheFacts, cause: str, fix: str, stated: str = "") -> Finding:
    title = f"{stated or f'the cache folder {cache.path}'} cannot be written"
    return failed("cache", "cache-not-writable", title, cause=cause, fix=fix)


def _init(cache: CacheFacts) -> str:
    return f"nimctl cache init {shlex.quote(cache.path)}"


CHECKS = (
    Check("cache", "storage", "the cache folder can be written by the container's user", judge_folder),
    Check("cache-entries", "storage", "the container's user can read what the cache holds", judge_entries),
)
