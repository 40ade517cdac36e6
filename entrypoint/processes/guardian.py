"""Ends the children when we are killed ourselves. Only needed outside of containers, where PID 1 takes all with it.

The parent-death signal of prctl(2) will not do: it belongs to the thread that forks, and our starts are threads that
end. So a shell waits on a pipe whose other end only we hold: whatever ends us closes it.
"""

import os
import subprocess
from contextlib import suppress

# Each line is the process id (and group) of a child, with a minus before it once that group has ended: its number may
# be anybody's then. The lines end with us: then every group gets a second to end.
_SCRIPT = """
trap '' INT TERM HUP
pids=
while read -r line; do
    left=
    for pid in $pids; do [ "-$pid" = "$line" ] || left="$left $pid"; done
    case $line in -*) pids=$left ;; *) pids="$left $line" ;; esac
done
for pid in $pids; do kill -s TERM -- "-$pid" 2>/dev/null; done
[ -z "$pids" ] || sleep 1
for pid in $pids; do kill -s KILL -- "-$pid" 2>/dev/null; done
"""


class Guardian:
    """Knows the process groups that must not outlive us. Makes nothing where we are a container's first process.

    `pid` is the shell's. It is ours to reap like every child.
    """

    def __init__(self) -> None:
        self._pipe: int | None = None
        self._groups: set[int] = set()
        self.pid: int | None = None
        if os.getpid() == 1:
            return
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT],
                stdin=read,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                process_group=0,
            )
        except OSError:
            os.close(write)  # no shell, no guard; everything else works
        else:
            self._pipe, self.pid = write, shell.pid
        finally:
            os.close(read)

    def guard(self, group: int) -> None:
        """Have this process group killed when we are, and those that have ended until now no more."""
        ended = {known for known in self._groups if not _is_there(known)}
        self._groups = self._groups - ended | {group}
        self._tell(*(-gone for gone in ended), group)

    def _tell(self, *numbers: int) -> None:
        if self._pipe is not None:
            with suppress(OSError):
                os.write(self._pipe, b"".join(b"%d\n" % number for number in numbers))


def _is_there(group: int) -> bool:
    """Whether a process of that group lives, or waits to be reaped."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
