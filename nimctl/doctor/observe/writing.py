"""A file made, linked, renamed and removed in the cache as the container's user, which leaves nothing behind.

Mode bits are an estimate: access lists, the server of a network filesystem, quotas and attributes decide as well. What
counts is what `uid:0` without capabilities can do, so a child process becomes that user and tries. It is a shell with
the few programs that every system has: this Python may lie in a folder that the other user cannot enter, and starting
it takes longer than the whole test.
"""

import contextlib
import errno
import os
import secrets
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from nimctl.core.facts import WriteTest

Step = Literal["make", "link", "rename", "remove"]

_GROUP = 0
_LONGEST_S = 60.0
# A killed child is gone at once, unless it waits in the kernel for a filesystem that is dead.
_REAP_S = 0.2
_REFUSED, _UNABLE = 1, 3
# No settings of the caller: messages in English, programs of the system (the last folder is NixOS's).
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin:/usr/local/bin:/run/current-system/sw/bin"}

# Arguments: the cache, a name that nobody else uses, the user id. A block of 4 KiB is written, because smaller files
# succeed on a full disk. Tried in the cache, and below it in the folder that a run would write in: the inner one where
# it can be seen, else the outer one in which it would be made. Links belong to somebody's layout, and are left alone.
# What is refused is told on standard output as step and folder, the system's word on standard error.
_SCRIPT = """
set -C
umask 0002
top=$1 name=$2 uid=$3
for program in head ln mv rm; do command -v $program >/dev/null || exit 3; done
refused() {
    printf '%s %s' "$1" "$2"
    shift 2
    rm -f "$top/$name" "$top/$name-link" "$top/$name-renamed" "$@" 2>/dev/null
    exit 1
}
head -c 4096 /dev/zero > "$top/$name" || refused make .
ln -s "$name" "$top/$name-link" || refused link .
mv "$top/$name" "$top/$name-renamed" || refused rename .
set --
for pair in huggingface/hub ngc/hub "engine/$uid"; do
    at=${pair%/*}
    [ -d "$top/$at" ] && [ ! -L "$top/$at" ] || continue
    [ -d "$top/$pair" ] && [ ! -L "$top/$pair" ] && at=$pair
    printf '' > "$top/$at/$name" || refused make "$at" "$@"
    set -- "$@" "$top/$at/$name"
done
rm "$top/$name-link" "$top/$name-renamed" "$@" || refused remove .
"""


def try_to_write(cache: Path, uid: int, until: float) -> WriteTest | None:
    """Whether `uid` with group 0 can write in `cache`; None when there is no such folder. Raises nothing.

    Only root can become somebody else to try; any other user can try as himself, if he has group 0. Takes until `until`
    (of `time.monotonic`) at the latest: a child that a dead filesystem keeps in the kernel is left behind.
    """
    try:
        # Not the path: in a container only this folder is mounted, and nobody has to come through those above it.
        top = os.open(cache, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return WriteTest(uid, _GROUP, detail=f"this user cannot reach the folder: {error.strerror}")
    try:
        return _tried(top, uid, until)
    finally:
        os.close(top)


def _tried(top: int, uid: int, until: float) -> WriteTest:
    test = WriteTest(uid, _GROUP)
    become: dict[str, Any] = {}
    if os.geteuid() == 0:
        become = {"user": uid, "group": _GROUP, "extra_groups": []}
    elif os.geteuid() != uid or _GROUP not in (os.getegid(), *os.getgroups()):
        return replace(test, detail=f"only root can try as {uid}:{_GROUP}, and this user is {os.geteuid()}")
    name = f".nimctl-write-test-{secrets.token_hex(8)}"
    try:
        child = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "sh", f"/proc/self/fd/{top}", name, str(uid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(top,),
            env=_ENVIRONMENT,
            cwd="/",
            text=True,
            errors="replace",
            start_new_session=True,
            **become,
        )
    except OSError as error:
        return replace(test, detail=f"this user cannot become {uid}:{_GROUP}: {error.strerror}")
    try:
        said, words = child.communicate(timeout=min(max(0.0, until - time.monotonic()), _LONGEST_S))
    except subprocess.TimeoutExpired:
        _give_up(child)
        _clean_up(top, name, uid)
        return replace(test, detail="the filesystem did not answer in time")
    if child.returncode < 0:
        _clean_up(top, name, uid)
    return _with_root(_result(test, child.returncode, said, words), top, name)


def _result(test: WriteTest, code: int, said: str, words: str) -> WriteTest:
    if code == 0:
        return replace(test, ok=True)
    step, _, folder = said.partition(" ")
    if code != _REFUSED or not folder:
        missing = "this system lacks one of the programs head, ln, mv and rm"
        return replace(test, detail=missing if code == _UNABLE else f"the test itself ended with {code}")
    # "sh: 9: cannot create /proc/self/fd/5/...: Permission denied"
    word = (words.strip().splitlines() or ["refused"])[-1].rpartition(": ")[2]
    return replace(test, ok=False, step=cast(Step, step), folder=folder, detail=word)


def _with_root(test: WriteTest, top: int, name: str) -> WriteTest:
    """The test with what root itself may, where this is root: it may everything, but for a server that says no."""
    if os.geteuid() != 0 or test.ok is None:
        return test
    try:
        _make_as_root(top, name)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            return test
        detail = test.detail or f"root itself is refused: {error.strerror}"
        return replace(test, as_root=False, detail=detail)
    return replace(test, as_root=True)


def _make_as_root(top: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        os.close(os.open(f"/proc/self/fd/{top}", flags | os.O_TMPFILE, 0o600))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        # A filesystem without nameless files, such as NFS.
        os.close(os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=top))
        os.unlink(name, dir_fd=top)


def _give_up(child: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_REAP_S)


def _clean_up(top: int, name: str, uid: int) -> None:
    """Remove what a killed child may have left, in a thread that is left behind if the filesystem still hangs."""
    handle = os.dup(top)

    def remove() -> None:
        folders = (".", "huggingface", "huggingface/hub", "ngc", "ngc/hub", "engine", f"engine/{uid}")
        for path in [f"{folder}/{name}{end}" for folder in folders for end in ("", "-link", "-renamed")]:
            with contextlib.suppress(OSError):
                os.unlink(path, dir_fd=handle)
        os.close(handle)

    threading.Thread(target=remove, name="doctor-write-test-clean-up", daemon=True).start()
