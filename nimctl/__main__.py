"""`nimctl` and `python -m nimctl`. Answers `--version` before anything is imported: scripts call it often."""

import sys


def main() -> None:
    """Run the command line; ends the process with the exit codes of docs/errors.md."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        from nimctl import __version__  # noqa: PLC0415 (the fast path imports nothing else)

        sys.stdout.write(f"nimctl {__version__}\n")
        return
    from nimctl.cli import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
