"""`nimctl` and `python -m nimctl`. Answers `--version` before anything is imported: scripts call it often."""

import os
import sys


def main() -> None:
    """Run the command line; ends the process with the exit codes of docs/errors.md."""
    _have_streams()
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        from nimctl import __version__  # noqa: PLC0415 (the fast path imports nothing else)

        sys.stdout.write(f"nimctl {__version__}\n")
        return
    from nimctl.cli import main as run  # noqa: PLC0415

    run()


def _have_streams() -> None:
    """Some schedulers start jobs with closed streams: then nobody reads, and files that are opened must not take their
    numbers. /dev/null stands in, as POSIX lets a shell do (https://pubs.opengroup.org/onlinepubs/9799919799/functions/exec.html).
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8"))


if __name__ == "__main__":
    main()
