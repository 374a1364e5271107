"""The operator's commands: what waits, what it costs, yes and no."""

import io
import json
import sys

import pytest

import coterie.cli.approving
from coterie.cli.main import main
from coterie.privacy.release import ConsentGiven, Refused


@pytest.fixture
def coterie(monkeypatch, capsys):
    """Run the command in this process; return its exit code and what it printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["coterie", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def asked(federation):
    """A partner that was asked for one study, and approves nothing by itself."""
    federation.policy(approval=None)
    assert federation.propose().codes == ("awaiting",)
    return federation


def words(federation):
    return [entry.body for entry in federation.everything() if entry.kind == "approval"]


def test_the_inbox_says_on_one_page_what_a_plan_costs_reads_and_would_release(coterie, asked):
    code, out, err = coterie("partner", "inbox", asked.folders["amber"])
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["spring", asked.digest, "awaiting"]
    for said in (
        "coupons, with a model of family logistic; until 2031-12-31",
        "amber, birch, cedar; trust local",
        "epsilon 4 in all at delta 1e-05, for a customer of one partner",
        "age, spend, region; label bought; all customers, named by customer, of at least 10 in training",
        "at most 2 noisy model updates, 2 noisy histograms",
    ):
        assert said in out
    assert out.count("of your remaining 24 (lifetime budget); ") == 2
    assert out.count(" more like this") == 2


def test_the_cost_that_is_printed_is_of_the_budget_that_binds(coterie, asked):
    asked.policy(budget__purposes={"coupons": 6.0}, budget__year_epsilon=20.0)
    _, out, _ = coterie("partner", "inbox", asked.folders["amber"])
    assert out.count("of your remaining 6 (budget of purpose coupons); ") == 2
    _, out, _ = coterie("partner", "inbox", asked.folders["amber"], "--json")
    (row,) = json.loads(out)
    assert {cost["budget"] for cost in row["budgets"]} >= {"lifetime budget", "budget of purpose coupons"}
    assert len(row["budgets"]) == 6


def test_a_plan_is_approved_by_its_name_after_a_question_and_then_runs(coterie, asked, monkeypatch):
    folder = asked.folders["amber"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, out, _ = coterie("partner", "approve", folder, "spring")
    assert code == 1
    assert "costs" in out
    assert words(asked) == []
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert coterie("partner", "approve", folder, "spring")[0] == 1
    assert words(asked) == []
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, out, _ = coterie("partner", "approve", folder, "spring", "--by", "officer")
    assert code == 0
    assert "approved" in out.splitlines()[-1]
    assert words(asked) == [{"plan": asked.digest, "decision": "approved", "by": "officer"}]
    assert isinstance(asked.propose(), ConsentGiven)
    code, out, _ = coterie("partner", "inbox", folder)
    assert (code, out) == (0, "no plan waits for your word\n")
    code, out, _ = coterie("partner", "inbox", folder, "--all")
    assert "approved     by officer at 2031-05-04T12:00:00+00:00" in out


def test_a_plan_is_declined_by_six_digits_with_a_reason_that_stays_here(coterie, asked):
    folder, digits = asked.folders["amber"], asked.digest.removeprefix("sha256:")[:6]
    assert coterie("partner", "decline", folder, digits)[0] == 2  # no reason
    code, out, _ = coterie("partner", "decline", folder, digits, "--reason", "not agreed")
    assert code == 0
    assert out.startswith("spring: declined")
    assert asked.propose() == Refused(asked.digest, ("declined",))
    _, out, _ = coterie("partner", "decline", folder, digits, "--reason", "not agreed")
    assert out == "spring: was declined before\n"
    assert [body["reason"] for body in words(asked)] == ["not agreed"]
    code, out, _ = coterie("partner", "approve", folder, "spring", "--yes")
    assert (code, len(words(asked))) == (0, 2)


def test_a_plan_that_the_policy_refuses_cannot_be_approved_and_every_reason_is_printed(coterie, asked):
    asked.policy(purposes=["calls"], labels=["other"])
    code, out, err = coterie("partner", "approve", asked.folders["amber"], "spring", "--yes")
    assert code == 2
    assert out.count("  but ") == 2
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["plan.purpose", "plan.contract.label"]
    assert words(asked) == []


@pytest.mark.parametrize("wanted", ["winter", "abc", "0" * 64])
def test_a_plan_that_is_not_here_is_one_error_with_its_fix(coterie, asked, wanted):
    for command in (("approve", "--yes"), ("decline", "--reason", "no")):
        code, _, err = coterie("partner", command[0], asked.folders["amber"], wanted, *command[1:])
        assert code == 2
        assert err.startswith("error: PLAN: names none of the 1 plans here. Fix: ")


def test_a_name_that_acts_on_a_terminal_is_printed_without_its_effect(coterie, asked):
    signed = asked.sign(name="a\u202eb\x7f")
    assert asked.propose(signed=signed.to_bytes()).codes == ("awaiting",)
    _, out, _ = coterie("partner", "inbox", asked.folders["amber"])
    assert "a?b?" in out
    _, out, _ = coterie("partner", "decline", asked.folders["amber"], signed.plan.digest(), "--reason", "no")
    assert out.startswith("a?b?: declined")


@pytest.mark.parametrize("command", [("inbox",), ("approve", "spring"), ("decline", "spring", "--reason", "no")])
def test_a_folder_that_is_no_workspace_is_one_clear_error(coterie, tmp_path, command):
    code, _, err = coterie("partner", command[0], tmp_path / "nowhere", *command[1:])
    assert code == 2
    assert err.count("error: ") == 1
    assert "policy.toml" in err
