"""What other programs and people wrote is shown, and never obeyed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, ü and 表", "plain words, ü and 表"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("two\rone", "two\\x0done"),
        ("a\u202etxt.exe", "a\\x202etxt.exe"),
        ("\x1b[0;36m(EngineCore)\x1b[0m ready", "(EngineCore) ready"),
        ("half \udc80", "half \\udc80"),
        ("tab\tand\nline", "tab\tand\nline"),
    ],
)
def test_controls_become_visible_and_colours_go(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_whatever_comes_can_be_written_and_moves_no_cursor(text):
    shown = printable(text)
    shown.encode("utf-8")
    assert not set(shown) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
