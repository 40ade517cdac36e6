"""The kinds of filesystem under the cache and the images."""

import re
import shlex

from nimctl.core.facts import DiskFacts, HostFacts
from nimctl.core.recipes import Recipe
from nimctl.doctor.checks.docker import user_namespaces
from nimctl.doctor.checks.scope import container_uid, docker_silent, no_docker_wanted
from nimctl.doctor.model import Check, Finding, Needs, Severity, failed, passed, skipped, unknown, warned
from nimctl.doctor.sizes import human

_MEMORY = ("tmpfs", "ramfs", "rootfs")
_LAYER = ("overlay", "overlayfs", "aufs", "fuse.fuse-overlayfs")
_NFS = ("nfs", "nfs4")
_WINDOWS = ("9p", "drvfs")
# Their modes and owners come from mount options and are the same for every file.
_WITHOUT_MODES = ("cifs", "smb3", "smbfs", "vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "fuse.exfat")
_FAT = ("vfat", "msdos")
# Buckets made to look like folders. https://docs.cloud.google.com/storage/docs/cloud-storage-fuse/overview,
# https://github.com/awslabs/mountpoint-s3/blob/main/doc/SEMANTICS.md, https://github.com/s3fs-fuse/s3fs-fuse,
# https://github.com/Azure/azure-storage-fuse/wiki/Blobfuse-Limitations-%7C-Differences-from-POSIX
_BUCKET = re.compile(r"fuse\.(gcsfuse|mountpoint-s3|s3fs|goofys|geesefs|blobfuse2?|rclone|ossfs2?|cosfs|obsfs)")
# Made for many machines at once. Some answer yes to every lock: https://github.com/huggingface/huggingface_hub/pull/4228
_CLUSTER = re.compile(r"lustre|gpfs|wekafs|beegfs|ceph|panfs|pvfs2|(fuse\.)?glusterfs|fuse\.(juicefs|ceph-fuse|ceph)")

_ON_A_DISK = "Name a folder on a local disk with --cache."
_ELSEWHERE = {
    "cache-in-layer": "Mount a folder of the host where the cache is to be, or name one with --cache.",
    "cache-in-bucket": f"{_ON_A_DISK} Weights in a bucket are a source: name them as s3:// or gs://.",
    "cache-on-windows": "Name a folder of the Linux side, such as one in your home, with --cache.",
}


def on_nfs(disk: DiskFacts | None) -> bool:
    """Whether a server decides who may do what, which takes group 0 away where it squashes root."""
    return disk is not None and disk.filesystem in _NFS


def keeps_modes(disk: DiskFacts | None) -> bool:
    """Whether owner, group and mode of a file can be changed there; yes where the kind is not known."""
    if disk is None or disk.filesystem is None:
        return True
    kind = disk.filesystem
    return not (kind in (*_WITHOUT_MODES, *_WINDOWS) or _BUCKET.fullmatch(kind))


def judge_cache(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The cache lies where weights of hundreds of gigabytes last, can be linked, and compiled code can be loaded.

    A snapshot is links to blobs, replaced by renaming; kernels compiled at run time are shared objects, which a
    `noexec` mount refuses to map (https://man7.org/linux/man-pages/man8/mount.8.html); memory and the layer of a
    container are gone with them (https://docs.docker.com/engine/storage/).
    """
    disk = facts.cache.disk
    if facts.cache.hangs:
        return [skipped("cache-filesystem", "cache filesystem", "the cache folder does not answer")]
    if disk is None or disk.filesystem is None:
        return [unknown("cache-filesystem", "cache filesystem", cause="its kind could not be told")]
    findings = [
        finding
        for finding in (
            _kind(disk, disk.filesystem, needs.recipe, wsl=facts.system.wsl is True),
            _links(facts, disk, needs),
            _for_one_user(facts, disk, needs),
            _noexec(disk),
            *(_network(facts, disk) if on_nfs(disk) else ()),
        )
        if finding is not None
    ]
    if findings:
        return findings
    notes = (
        ("locks may do nothing there, which costs bandwidth and no bytes",) if _CLUSTER.match(disk.filesystem) else ()
    )
    return [passed("cache-filesystem", f"the cache lies on {disk.filesystem} ({disk.path})", evidence=notes)]


def _kind(disk: DiskFacts, kind: str, recipe: Recipe | None, *, wsl: bool) -> Finding | None:
    if kind in _MEMORY:
        size = f"{human(recipe.weights_bytes)} of weights take" if recipe and recipe.weights_bytes else "weights take"
        found = "cache-in-memory", f"it is memory: {size} what the engine needs as well, and are gone after a restart"
    elif kind in _LAYER:
        found = (
            "cache-in-layer",
            "it is the layer of a container or of a live system, and what it holds is lost with it",
        )
    elif _BUCKET.fullmatch(kind):
        found = (
            "cache-in-bucket",
            "a bucket renames by copying, keeps no modes and seldom links, so a download may fail",
        )
    elif kind in _WINDOWS and (wsl or "aname=drvfs" in disk.options):
        kept = "is" if "metadata" in disk.options else "keeps no owners and modes (no `metadata` option) and is"
        found = "cache-on-windows", f"the Windows side of WSL {kept} reached through a slow protocol"
    elif kind == "9p":
        found = "cache-shared-folder", "a folder that a virtual machine shares is reached through a slow protocol"
    elif kind in _WITHOUT_MODES:
        limit = ", and no file may reach 4 GiB, as weights do" if kind in _FAT else ""
        found = "cache-without-modes", f"it keeps no owners and modes, so files cannot be shared by group{limit}"
    else:
        return None
    id_, cause = found
    return _warned(id_, f"the cache lies on {kind} ({disk.path})", cause, _ELSEWHERE.get(id_, _ON_A_DISK))


def _links(facts: HostFacts, disk: DiskFacts, needs: Needs) -> Finding | None:
    test, recipe = facts.cache.write_test, needs.recipe
    if test is None or test.ok is not False or test.step != "link":
        return None
    title = f"{disk.filesystem} takes no links ({disk.path})"
    cause = f"a symbolic link was refused ({test.detail}), and a snapshot of weights consists of them"
    if recipe is None or recipe.weights.startswith("builtin:"):
        return _warned("cache-without-links", title, cause, _ON_A_DISK)
    return failed("cache-filesystem", "cache-not-writable", title, cause=cause, fix=_ON_A_DISK)


def _for_one_user(facts: HostFacts, disk: DiskFacts, needs: Needs) -> Finding | None:
    """The kernel keeps a FUSE mount for its user and group unless told otherwise, and keeps root out as well."""
    test, options = facts.cache.write_test, dict(option.partition("=")[::2] for option in disk.options)
    if not (disk.filesystem or "").startswith("fuse") or "allow_other" in options or "user_id" not in options:
        return None
    uid = container_uid(facts, needs)
    if needs.runtime == "process" or user_namespaces(facts.docker) or (test is not None and test.ok is not None):
        return None
    if (options["user_id"], options.get("group_id")) == (str(uid), "0"):
        return None
    return failed(
        "cache-filesystem",
        "cache-not-writable",
        f"the {disk.filesystem} mount of the cache is for uid {options['user_id']} alone",
        cause=f"without `allow_other` the kernel keeps everybody else out, the container's user {uid}:0 and root too",
        fix="Mount it again with `-o allow_other` (`user_allow_other` in /etc/fuse.conf).",
    )


def _noexec(disk: DiskFacts) -> Finding | None:
    if "noexec" not in disk.options:
        return None
    return _warned(
        "cache-noexec",
        f"the cache is mounted noexec ({disk.path})",
        "kernels that the engine compiles are kept there and cannot be loaded, in a container no more than here",
        f"`sudo mount -o remount,exec {_mount_point(disk)}`, and drop noexec from /etc/fstab.",
    )


def _mount_point(disk: DiskFacts) -> str:
    return f'"$(findmnt -no TARGET -T {shlex.quote(disk.path)})"'


def _network(facts: HostFacts, disk: DiskFacts) -> tuple[Finding | None, ...]:
    """https://man7.org/linux/man-pages/man5/nfs.5.html and https://man7.org/linux/man-pages/man5/exports.5.html"""
    soft, squashed, test = None, None, facts.cache.write_test
    if found := {"soft", "softerr"}.intersection(disk.options):
        soft = _warned(
            "cache-nfs-soft",
            f"the cache is mounted {found.pop()} ({disk.path})",
            "when the server is slow, reads and writes fail instead of waiting, which can damage files without a word",
            "Mount it with the option `hard`, which is the default.",
        )
    if test is not None and test.ok and test.as_root is False:
        squashed = _warned(
            "cache-root-squashed",
            f"the server of the cache refuses root ({disk.path})",
            "it squashes root, so `sudo nimctl cache init` can repair nothing there, and group 0 becomes nobody's",
            f"Always run as uid {facts.cache.uid}, who owns the folder; `no_root_squash` on the server would make root "
            "of every client root there.",
            severity="info",
        )
    return soft, squashed


def _warned(id_: str, title: str, cause: str, fix: str, severity: Severity = "warning") -> Finding:
    return warned("cache-filesystem", id_, title, cause=cause, fix=fix, severity=severity)


def judge_image_store(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Docker keeps images on a disk, in layers that it need not copy.

    Layers are stacked by overlayfs, which takes no network filesystem and no other overlay below it: there Docker falls
    back to `vfs` (containerd to `native`), which copies the whole image once for every layer.
    https://docs.docker.com/engine/storage/drivers/select-storage-driver/
    """
    check, title, docker, store = "image-filesystem", "image store", facts.docker, facts.image_store
    if reason := no_docker_wanted(needs) or docker_silent(facts):
        return [skipped(check, title, reason)]
    kind, driver = store.filesystem if store else None, docker.storage_driver
    where = f"{kind} ({store.path})" if store and kind else "an unknown filesystem"
    fix = "Move Docker's data-root to a local ext4 or xfs, on which it takes overlay2 by itself: https://docs.docker.com/engine/daemon/#daemon-data-directory"
    if driver in ("vfs", "native"):
        cause = f"the driver {driver} copies the whole image once for every layer of it, in time and in space"
        return [warned(check, "images-copied", f"Docker keeps images as full copies ({driver})", cause=cause, fix=fix)]
    if kind is None:
        return [unknown(check, title, cause="Docker keeps images where this host cannot see their filesystem")]
    if kind in _MEMORY:
        cause = "it is memory, which the engine needs as well, and every restart pulls the image again"
        return [warned(check, "images-in-memory", f"Docker keeps images on {where}", cause=cause, fix=fix)]
    if not keeps_modes(store) or kind in (*_NFS, *_LAYER):
        cause = "layers of images cannot be stacked there as Docker expects"
        return [warned(check, "images-on-odd-filesystem", f"Docker keeps images on {where}", cause=cause, fix=fix)]
    return [passed(check, f"Docker keeps images on {where}" + (f", {driver}" if driver else ""))]


CHECKS = (
    Check(
        "cache-filesystem",
        "storage",
        "the cache's kind of filesystem can hold weights",
        judge_cache,
        (
            "cache-in-bucket",
            "cache-in-layer",
            "cache-in-memory",
            "cache-nfs-soft",
            "cache-noexec",
            "cache-not-writable",
            "cache-on-windows",
            "cache-root-squashed",
            "cache-shared-folder",
            "cache-without-links",
            "cache-without-modes",
        ),
    ),
    Check(
        "image-filesystem",
        "storage",
        "the image store's kind of filesystem can hold layers",
        judge_image_store,
        ("images-copied", "images-in-memory", "images-on-odd-filesystem"),
    ),
)
