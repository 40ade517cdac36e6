"""Lines of BuildKit's plain progress."""

import pytest

from nimctl.images.progress import Step, parse_line


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("#7 [system 2/4] RUN sh apt.sh", Step(7, "started", "[system 2/4] RUN sh apt.sh")),
        ("#7 12.31 Unpacking g++", Step(7, "log", "Unpacking g++")),
        ("#7 CACHED", Step(7, "cached")),
        ("#7 DONE 59.4s", Step(7, "done")),
        ("#7 ERROR: exit code: 1", Step(7, "error", "exit code: 1")),
        ("#7 sha256:12 1MB / 2MB", Step(7, "log", "sha256:12 1MB / 2MB")),
        ("", None),
        ("------", None),
    ],
)
def test_progress_lines(line: str, step: Step | None) -> None:
    assert parse_line(line) == step
