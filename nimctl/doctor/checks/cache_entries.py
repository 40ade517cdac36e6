"""What lies in the cache: can the container's user read the weights, and use the rest?"""

import re
import shlex
from pathlib import PurePosixPath

from nimctl.core.facts import CacheEntry, CacheFacts, HostFacts
from nimctl.core.recipes import Recipe
from nimctl.doctor.checks.docker import user_namespaces
from nimctl.doctor.checks.filesystem import keeps_modes
from nimctl.doctor.checks.scope import container_uid
from nimctl.doctor.model import Finding, Needs, failed, passed, skipped, unknown, warned

# An address of weights whose folder in the cache is known by its name; what follows is a revision or single files.
_ADDRESS = re.compile(r"(?P<scheme>hf|ngc)://(?P<name>[\w.-]+(?:/[\w.-]+)+)(?:[:@?].*)?")
_DEMO = "models--nimctl--demo"
# Of a repository what the engine reads. The rest, such as locks, markers and what has not come whole, is not served.
_SERVED = ("blobs", "snapshots")
_UNFINISHED = ".incomplete"


def judge_entries(facts: HostFacts, needs: Needs) -> list[Finding]:
    """What is in the cache can be read and replaced by the container's user.

    Files written with mode 0600, as safetensors writes them, cannot be read by another user, and the engine then says
    that they do not exist (https://github.com/huggingface/safetensors). What belongs to another model keeps that one
    from being served, and not this one.
    """
    title, cache = "what the cache holds", facts.cache
    if not cache.exists or cache.hangs:
        return [skipped("cache-entries", title, "there is no cache folder to look into")]
    if needs.runtime == "process":
        return [skipped("cache-entries", title, "the process runtime reads as this user")]
    if user_namespaces(facts.docker):
        return [skipped("cache-entries", title, "Docker maps user ids")]
    if not keeps_modes(cache.disk):
        return [skipped("cache-entries", title, "its filesystem keeps no modes")]
    if cache.entries_seen is None:
        return [unknown("cache-entries", title, cause="the folder could not be looked through")]
    uid = container_uid(facts, needs)
    unreadable = [e for e in cache.unreadable_entries if not _owner_may(e, uid, 0o400)]
    weights = [e for e in unreadable if _is_served(e, needs.recipe)]
    unwritable = [e for e in cache.unwritable_entries if not _owner_may(e, uid, 0o300)]
    fix = repair(cache)
    findings = []
    if weights:
        findings.append(
            failed(
                "cache-entries",
                "weights-unreadable",
                f"the container's user {uid}:0 cannot read {_count(weights)}",
                cause="weights were written with mode 0600, as safetensors does, or by a user of another group; the "
                "engine would say that they do not exist",
                fix=fix,
                evidence=_shown(weights),
            )
        )
    if others := list(dict.fromkeys(e for e in (*unreadable, *unwritable) if e not in weights)):
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
    return findings or [passed("cache-entries", f"{cache.entries_seen} entries of the cache can be used by {uid}:0")]


def _is_served(entry: CacheEntry, recipe: Recipe | None) -> bool:
    """Whether a run of this recipe would read the entry, as far as its path tells.

    Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
    """
    folder = _folder_of(recipe.weights) if recipe else None
    parts = PurePosixPath(entry.path).parts
    if folder is None or folder not in parts or entry.path.endswith(_UNFINISHED):
        return False
    above, below = parts[: parts.index(folder)], parts[parts.index(folder) + 1 :]
    return ".locks" not in above and (not below or below[0] in _SERVED)


def _folder_of(weights: str) -> str | None:
    """The name of the folder in the cache that holds the weights at this address; None where it is not known."""
    if weights.startswith("builtin:"):
        return _DEMO
    found = _ADDRESS.fullmatch(weights)
    if found is None:
        return None
    parent, _, name = found["name"].rpartition("/")
    if found["scheme"] == "ngc":  # as NIM writes it
        name = name.replace(".", "_")
    return "--".join(("models", *parent.split("/"), name))


def repair(cache: CacheFacts) -> str:
    """The command that mends owner and modes. Where access lists lie on it, a chmod changes their mask alone."""
    folder = shlex.quote(cache.path)
    init = f"sudo nimctl cache init {folder}"
    if cache.acl or cache.default_acl:
        return f"Take the access lists away, then mend the modes: `sudo setfacl -R -b {folder} && {init}`."
    return f"Run `{init}`."


def mode_bits(mode: str | None) -> int:
    """Octal text as bits; none for text that is not octal, which only a file written by hand can hold."""
    return int(mode, 8) if mode and re.fullmatch("[0-7]{1,7}", mode) else 0


def _owner_may(entry: CacheEntry, uid: int, bits: int) -> bool:
    return entry.uid == uid and mode_bits(entry.mode) & bits == bits


def _count(entries: list[CacheEntry]) -> str:
    return PurePosixPath(entries[0].path).name if len(entries) == 1 else f"{len(entries)} files or folders"


def _shown(entries: list[CacheEntry]) -> tuple[str, ...]:
    return tuple(f"{e.path}: {e.uid}:{e.gid}, mode {e.mode}" for e in entries[:8])
