"""What a text of SQL does, as far as it can be told."""

from __future__ import annotations

import pytest

from brownout import Certainty
from brownout.ext.sql import Place, Session, answered, interrupted
from brownout.ext.statement import commits, reads


@pytest.mark.parametrize(
    "text",
    [
        "COMMIT", " commit and chain;", "END", "end transaction", "insert into t values (1); commit",
        "prepare transaction 'x'", "/* x */ commit", "-- x\ncommit",
    ],
)  # fmt: skip
def test_a_text_that_may_commit_is_found(text: str) -> None:
    assert commits(text)


@pytest.mark.parametrize(
    "text",
    [
        "insert into t values ('commit; x')", "insert into t values (1) on conflict do nothing",
        "select case when a then b end from t", "update commit set a = 1", "begin", "rollback",
        "select 1 -- ; commit",
    ],
)  # fmt: skip
def test_a_text_that_can_t_commit_is_left_alone(text: str) -> None:
    assert not commits(text)


@pytest.mark.parametrize(
    "text",
    ["", "select 1", "SELECT count(*) FROM t WHERE a IN (1, 2)", "begin", "show all", "set a = 1"],
)
def test_a_text_that_only_reads_is_known(text: str) -> None:
    assert reads(text)


@pytest.mark.parametrize(
    "text",
    [
        "insert into t values (1)", "select nextval('s')", "select f(1)", "select s.f (1)",
        "with x as (delete from t returning a) select a from x", "select a into u from t", "?",
        "create table t ()", "select 1; delete from t", 'select "f"(1)',
    ],
)  # fmt: skip
def test_a_text_that_may_write_is_never_called_a_read(text: str) -> None:
    assert not reads(text)


def test_a_quotation_that_may_end_elsewhere_is_not_believed() -> None:
    text = r"select E'\''; commit; select f(1), 'x'"
    assert commits(text)
    assert not reads(r"select E'\'', f(1), 'x'")


def test_a_text_that_commits_and_goes_on_is_certain_of_nothing() -> None:
    for text in ("insert into t values (1); commit; select 1/0", "commit; select 1"):
        assert Session.place(text, in_transaction=True) is Place.PARTLY
    for text in ("call p()", "do $$ begin commit; perform 1/0; end $$"):
        assert Session.place(text, in_transaction=False) is Place.PARTLY
    assert Session.place("call p()", in_transaction=True) is Place.IN_TRANSACTION  # it can't commit
    assert Session.place("commit", in_transaction=True) is Place.COMMITTING
    assert answered("22012", Place.PARTLY).certainty is Certainty.UNKNOWN


@pytest.mark.parametrize("code", ["40003", "08007"])
@pytest.mark.parametrize("place", [Place.IN_TRANSACTION, Place.ALONE, Place.COMMITTING])
def test_what_the_server_does_not_know_itself_is_unknown(code: str, place: Place) -> None:
    assert answered(code, place).certainty is Certainty.UNKNOWN


@pytest.mark.parametrize("code", ["57P01", "57P02", "08006", "08003", "XX000", "58030"])
def test_a_session_that_was_killed_is_certain_only_in_its_transaction(code: str) -> None:
    assert answered(code, Place.IN_TRANSACTION).certainty is Certainty.ABSENT
    for place in (Place.ALONE, Place.COMMITTING):
        assert answered(code, place).certainty is Certainty.UNKNOWN


@pytest.mark.parametrize("code", ["23505", "22012", "40001", "40P01", "57014", "53100", "42601"])
def test_an_answer_is_certain_everywhere(code: str) -> None:
    for place in (Place.IN_TRANSACTION, Place.ALONE, Place.COMMITTING):
        assert answered(code, place).certainty is not Certainty.UNKNOWN


def test_silence_is_certain_before_commit_alone() -> None:
    unknown = {place for place in Place if interrupted(place).certainty is Certainty.UNKNOWN}
    assert unknown == {Place.ALONE, Place.COMMITTING, Place.PARTLY}
