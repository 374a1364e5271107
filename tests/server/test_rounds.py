"""The life of a study: only the steps of the table are taken, and the drawing shows just those."""

import itertools

import pytest

from coterie.server import rounds
from coterie.server.rounds import TABLE, Happening, State, StudyAborted, after

ALL = list(itertools.product(State, Happening))


@pytest.mark.parametrize(("state", "happening"), [pair for pair in ALL if pair not in TABLE])
def test_a_step_that_is_not_in_the_table_is_a_fault_of_the_caller(state, happening):
    with pytest.raises(ValueError, match=f"nothing follows {happening.value} in state {state.value}"):
        after(state, happening)


@pytest.mark.parametrize(("state", "happening"), [pair for pair, to in TABLE.items() if to is not State.ABORTED])
def test_a_step_of_the_table_leads_where_it_says(state, happening):
    assert after(state, happening) is TABLE[state, happening]


@pytest.mark.parametrize("state", [state for (state, _), to in TABLE.items() if to is State.ABORTED])
def test_too_few_partners_end_the_study_with_an_error_that_says_when(state):
    with pytest.raises(StudyAborted, match=f"the study, while {state.value}: fewer partners answered"):
        after(state, Happening.TOO_FEW)


def test_every_state_is_reached_and_nothing_follows_an_end():
    reached, edge = set(), {State.PROPOSED}
    while edge:
        reached |= edge
        edge = {to for (state, _), to in TABLE.items() if state in edge} - reached
    assert reached == set(State)
    assert {state for state, _ in TABLE} == set(State) - {State.FINISHED, State.ABORTED}


def test_a_whole_study_can_be_told_in_the_tables_words():
    state = after(State.PROPOSED, Happening.ENOUGH_CONSENTS)
    for _ in range(3):
        for happening in (Happening.TASKS_SENT, Happening.ENOUGH_UPDATES, Happening.STORED):
            state = after(state, happening)
    assert after(state, Happening.LAST_ROUND) is State.FINISHED


# --- the drawing ------------------------------------------------------------------------------------------------

LEFT, RIGHT, UP, DOWN = (0, -1), (0, 1), (-1, 0), (1, 0)
HEADS = {"▶": LEFT, "◀": RIGHT, "▲": DOWN}  # where the line comes from
CORNERS = {
    "└": {LEFT: UP, DOWN: RIGHT},
    "┘": {RIGHT: UP, DOWN: LEFT},
    "┐": {RIGHT: DOWN, UP: LEFT},
    "┌": {LEFT: DOWN, UP: RIGHT},
}


def drawing():
    lines = [line for line in rounds.__doc__.splitlines() if any(mark in line for mark in "─│")]
    width = max(map(len, lines))
    return [line.ljust(width) for line in lines]


def name_at(grid, row, column):
    """The state whose name covers a cell."""
    for state in State:
        start = grid[row].find(state.name)
        if start >= 0 and start <= column < start + len(state.name):
            return state
    return None


def traced(grid, row, column):
    """Follow a line back from its arrowhead: the words written on it, and the state where it starts."""
    heading, words = HEADS[grid[row][column]], ""
    while True:
        row, column = row + heading[0], column + heading[1]
        state = name_at(grid, row, column)
        if state is None and grid[row][column] == " " and heading in (LEFT, RIGHT):
            # The one space between a name and its line, or between words on it.
            state = name_at(grid, row, column + heading[1])
        if state is not None:
            return words, state
        mark = grid[row][column]
        if mark in CORNERS:
            heading = CORNERS[mark][heading]
        elif mark not in "─│▲":
            words = mark + words if heading == LEFT else words + mark


def drawn():
    grid = drawing()
    edges = set()
    for row, line in enumerate(grid):
        for column, mark in enumerate(line):
            if mark in HEADS:
                target = (
                    name_at(grid, row, column + 2) or name_at(grid, row, column - 2) or name_at(grid, row - 1, column)
                )
                words, state = traced(grid, row, column)
                edges.add((state, words.strip(), target))
    return edges


def test_the_drawing_shows_the_table():
    edges = drawn()
    assert len(edges) == len(TABLE)
    for state, words, target in edges:
        (happening,) = (h for (s, h), to in TABLE.items() if (s, to) == (state, target))
        assert words in happening.value
        assert words
