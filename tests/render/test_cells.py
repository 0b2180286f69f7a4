from math import nan

import pytest

from brownout import State
from brownout.render.cells import Style, bars, fit, mark, paint, plain, style, width, wrap

TERMINAL = {"TERM": "xterm-256color"}


@pytest.mark.parametrize(
    ("text", "cells"),
    [("", 0), ("abc", 3), ("數字", 4), ("é", 1), ("e\N{COMBINING ACUTE ACCENT}", 1), ("●", 1)],
)
def test_width_counts_cells(text: str, cells: int) -> None:
    assert width(text) == cells


@pytest.mark.parametrize(
    ("text", "cells", "fitted"),
    [
        ("abc", 5, "abc  "),
        ("abcdef", 5, "abcd…"),
        ("數字數", 5, "數字…"),
        ("數字數", 4, "數… "),
        ("abc", 3, "abc"),
    ],
)
def test_a_fitted_text_takes_exactly_its_cells(text: str, cells: int, fitted: str) -> None:
    assert fit(text, cells) == fitted
    assert width(fit(text, cells, right=True)) == cells


@pytest.mark.parametrize("cells", [4, 7, 20, 80])
@pytest.mark.parametrize(
    "text", ["", "one", "one two three", "a" * 50, "數" * 50 + " x", "a " * 90]
)
def test_wrapped_lines_are_short_and_lose_nothing(text: str, cells: int) -> None:
    lines = wrap(text, cells)
    assert all(width(line) <= cells for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_bars_show_what_is_not_zero_and_leave_gaps() -> None:
    assert bars([0, 1, 500, 1000, nan]) == "▁▂▅█ "
    assert bars([0, 0]) == "▁▁"
    assert bars([]) == ""
    assert bars([0, 1, 1000, nan], Style(ascii=True)) == "_.# "


@pytest.mark.parametrize("state", list(State))
def test_the_letter_stands_whatever_the_style(state: State) -> None:
    for how in (Style(), Style(ascii=True), Style(colour=True), Style(colour=True, light=True)):
        assert state.letter in paint(mark(state, how), state, how)
    assert state.shape in mark(state)
    assert mark(state, Style(ascii=True)) == state.letter


def test_states_have_colours_of_their_own() -> None:
    for light in (False, True):
        how = Style(colour=True, light=light)
        assert len({paint("x", state, how) for state in State}) == 5
    assert paint("x", None, Style(colour=True)) == "x"


@pytest.mark.parametrize(
    ("environ", "terminal", "colour"),
    [
        (TERMINAL, True, True),
        (TERMINAL, False, False),
        (TERMINAL | {"NO_COLOR": "1"}, True, False),
        (TERMINAL | {"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
    ],
)
def test_colour_is_for_terminals_whose_users_want_it(
    environ: dict[str, str], terminal: bool, colour: bool
) -> None:
    assert style(environ, terminal=terminal).colour is colour


@pytest.mark.parametrize(
    ("encoding", "ascii_only"),
    [("utf-8", False), ("ascii", True), ("latin-1", True), ("no such", True)],
)
def test_an_encoding_without_the_shapes_leaves_letters(encoding: str, ascii_only: bool) -> None:
    assert style(TERMINAL, terminal=True, encoding=encoding).ascii is ascii_only


def test_a_light_ground_is_seen() -> None:
    assert style(TERMINAL | {"COLORFGBG": "0;15"}, terminal=True).light
    assert not style(TERMINAL | {"COLORFGBG": "15;0"}, terminal=True).light


def test_plain_is_ascii_where_that_is_asked_for() -> None:
    assert plain("≠ ok … 數 →", Style(ascii=True)) == "!= ok ~ ? ->"
    assert plain("≠", Style()) == "≠"
