"""Room for the weights and the image, on one filesystem or on two."""

import shlex

from nimctl.core.facts import DiskFacts, HostFacts
from nimctl.core.recipes import Recipe
from nimctl.doctor.checks.cache import found_full
from nimctl.doctor.checks.image_needed import image_here
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.sizes import human

# A checkpoint of 100 files makes about 300 entries in the Hugging Face layout, its caches some hundred more.
LEAST_INODES = 1_000
# A Python image with vLLM and torch has some 60,000 files: counted in the pinned CPU stack.
IMAGE_INODES = 100_000

_POOLED = ("btrfs", "zfs")  # several devices, one pool of free space


def judge_space(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The weights fit where the cache is; image and compile caches, an estimate, fit where they go.

    Where images go on the same filesystem the needs add up. What the cache holds of this model's weights already needs
    no room any more. With the containerd image store images lie in containerd's folder and not in Docker's data root:
    https://docs.docker.com/engine/storage/containerd/
    """
    title, recipe, disk = "disk space", needs.recipe, facts.cache.disk
    if facts.cache.hangs:
        return [skipped("disk", title, "the cache folder does not answer")]
    if disk is None or disk.free is None:
        return [unknown("disk", title, cause="the free space of the cache's filesystem could not be told")]
    if recipe is None or (recipe.weights_bytes is None and recipe.disk_bytes is None):
        return [
            passed("disk", f"{human(disk.free)} free for the cache ({_where(disk)}); the model's size is not known")
        ]
    weights = recipe.weights_bytes or 0
    rest = max(0, (recipe.disk_bytes or 0) - weights)
    missing = max(0, weights - (_held(facts, recipe) or 0))
    image = rest if _pulls(facts, needs) else 0
    store = facts.image_store if image else None
    shared = store is not None and is_same(disk, store)
    if found_full(facts, needs):
        findings = [skipped("disk", "space for the cache", "a write was refused for want of room, see `cache`")]
    else:
        findings = [_cache_space(facts, disk, missing, missing + (image if shared else 0), needs)]
    if image and store is None and facts.docker.state == "ok":
        cause = "Docker keeps images where this host cannot see them"
        findings.append(unknown("disk", "space for the image", cause=cause))
    if store is not None and store.free is not None and not shared:
        findings.append(_image_space(store, store.free, image))
    return findings


def _held(facts: HostFacts, recipe: Recipe) -> int | None:
    """Bytes of the weights that are in the cache already; None where nobody counted, or those of another model."""
    held = facts.cache.held
    if held is None or held.source != recipe.weights:
        return None
    return max(held.size, recipe.weights_bytes or 0) if held.complete else held.size


def _pulls(facts: HostFacts, needs: Needs) -> bool:
    """Whether an image has to be brought, unless it is known to be here."""
    return needs.runtime == "docker" and not image_here(facts)


def _cache_space(facts: HostFacts, disk: DiskFacts, sure: int, likely: int, needs: Needs) -> Finding:
    """`sure` bytes of weights have to be written for certain, `likely` counts what else is said to be needed."""
    assert disk.free is not None and needs.recipe is not None  # judge_space has seen to it
    name = needs.recipe.name
    # Where nobody counted this model's files, all that the cache holds may be them.
    held = (facts.cache.entries_bytes or 0) if _held(facts, needs.recipe) is None else 0
    title = f"{human(disk.free)} free for the cache ({_where(disk)}), {human(likely)} needed for {name}"
    fix = f"Free space there (`df -h {shlex.quote(disk.path)}`), or name a folder on a larger disk with --cache."
    if disk.free >= likely:
        return passed("disk", title)
    if disk.free + held < sure:
        cause = f"the weights of {name} that are still to be written are {human(sure)}"
        return failed("disk", "disk-full", title, cause=cause, fix=fix)
    if disk.free < sure:
        cause = f"the weights are {human(sure)}, unless they are among the {human(held)} that the cache holds"
    else:
        cause = "the weights fit, but image and compile caches may not"
    return warned("disk", "disk-tight", title, cause=cause, fix=fix)


def _image_space(store: DiskFacts, free: int, image: int) -> Finding:
    title = f"{human(free)} free for images ({_where(store)}), up to {human(image)} needed"
    if free >= image:
        return passed("disk", title)
    return warned(
        "disk",
        "disk-tight",
        title,
        cause="the image is unpacked there, and what its layers and caches take is an estimate",
        fix="Remove what is not used (`docker system df`, then `docker image prune`), or move Docker's data-root.",
    )


def judge_inodes(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The filesystems can hold more files: a filesystem can be full of them while there is space.

    ext4 makes them when it is formatted, and their number is its limit: https://man7.org/linux/man-pages/man8/mkfs.ext4.8.html
    """
    disk, store = facts.cache.disk, facts.image_store if _pulls(facts, needs) else None
    if facts.cache.hangs:
        return [skipped("inodes", "inodes", "the cache folder does not answer")]
    if disk is None:
        return [unknown("inodes", "inodes", cause="the cache's filesystem could not be looked at")]
    if found_full(facts, needs):
        return [skipped("inodes", "inodes", "a write was refused for want of room, see `cache`")]
    shared = store is not None and is_same(disk, store)
    findings = [_cache_inodes(disk, LEAST_INODES + (IMAGE_INODES if shared else 0))]
    if store is not None and not shared and store.inodes_free is not None and store.inodes_free < IMAGE_INODES:
        cause = f"an image with an engine has up to {IMAGE_INODES:,} files"
        findings.append(_few_inodes(f"{store.inodes_free} inodes free for images ({_where(store)})", cause))
    return findings


def _cache_inodes(disk: DiskFacts, likely: int) -> Finding:
    if disk.inodes_free is None:
        return passed("inodes", "the cache's filesystem sets no limit on the number of files")
    title = f"{disk.inodes_free} inodes free for the cache ({_where(disk)})"
    if disk.inodes_free >= likely:
        return passed("inodes", title)
    if disk.inodes_free >= LEAST_INODES:
        return _few_inodes(title, f"images go there too, and one with an engine has up to {IMAGE_INODES:,} files")
    return failed(
        "inodes",
        "disk-full",
        f"{title}, {LEAST_INODES} are needed",
        cause="the filesystem can hold no more files, however much space is free",
        fix=f"Delete small files there (`df -i {shlex.quote(disk.path)}`), or name another disk with --cache.",
    )


def _few_inodes(title: str, cause: str) -> Finding:
    return warned(
        "inodes", "inodes-few", title, cause=cause, fix="Remove images that are not used: `docker image prune`."
    )


def is_same(one: DiskFacts, other: DiskFacts) -> bool:
    """Whether two places share their free space."""
    if one.device is not None and one.device == other.device:
        return True
    pooled = one.filesystem == other.filesystem and one.filesystem in _POOLED
    return pooled and one.total == other.total


def _where(disk: DiskFacts) -> str:
    return f"{disk.path}, {disk.filesystem}" if disk.filesystem else disk.path


CHECKS = (
    Check("disk", "storage", "weights and image fit on their filesystems", judge_space, ("disk-full", "disk-tight")),
    Check("inodes", "storage", "the filesystems can hold more files", judge_inodes, ("disk-full", "inodes-few")),
)
