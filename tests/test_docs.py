"""The documentation is true: what the code has is described, and what is described can be run."""

import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from coterie.cli.main import app
from coterie.privacy import contract, entries, events, plan, release
from coterie.privacy.policy import Approval, Budget, Consent, MatchRules, Policy
from coterie.privacy.redlines import RedLines

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def lines_of(command):
    """Return every line of a shell block in the documentation that starts with `command`."""
    return [
        pytest.param(line.split("#")[0].strip(), id=f"{path.name}: {line}")
        for path in DOCS
        for block in blocks(path, "sh")
        for line in block.splitlines()
        if line.startswith(command + " ")
    ]


@pytest.mark.parametrize("kind", sorted(release.KINDS))
def test_every_release_is_described_with_what_it_leaks(kind):
    assert f"`{kind}`" in text("docs/releases.md")
    assert "Leaks:" in (release.KINDS[kind].__doc__ or "")


@pytest.mark.parametrize("code", sorted(release.CODES))
def test_every_word_of_a_refusal_is_described(code):
    assert f"| `{code}` | {release.CODES[code]} |" in text("docs/releases.md")


def test_every_event_is_described():
    for kind in (events.PoissonGaussian, events.DiscreteGaussian, events.DistributedGaussian, events.Nothing):
        assert f"`{kind.kind}`" in text("docs/releases.md")


KEYS = [
    field for kind in (Policy, Budget, Approval, Consent, MatchRules, RedLines) for field in dataclasses.fields(kind)
]


@pytest.mark.parametrize("field", KEYS, ids=lambda field: field.name)
def test_every_key_of_a_policy_is_described(field):
    assert re.search(rf"`(approval\.|budget\.|consent\.|matching\.|red_lines\.)?{field.name}", text("docs/policy.md"))


STUDY = (
    plan.Plan,
    plan.Model,
    plan.Training,
    plan.Tuning,
    plan.Privacy,
    plan.Split,
    plan.Metrics,
    plan.Cohort,
    plan.Partner,
    plan.Secure,
    plan.Matching,
)


@pytest.mark.parametrize(
    "name",
    sorted({f.name for kind in (*STUDY, contract.Contract, contract.Column) for f in dataclasses.fields(kind)}),
)
def test_every_key_of_a_study_is_described(name):
    assert name in text("docs/study.md")


@pytest.mark.parametrize("kind", entries.SHAPES)
def test_every_kind_of_ledger_entry_is_described(kind):
    assert f"| `{kind}` |" in text("docs/formats/ledger.md")


@pytest.mark.parametrize("line", lines_of("coterie"))
def test_a_documented_command_exists_with_these_options(line):
    words = shlex.split(line)[1:]
    command = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert not getattr(command, "commands", None), "a group, not a command"
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("line", lines_of("make"))
def test_a_documented_make_target_exists(line):
    target = line.split()[1]
    assert re.search(rf"^{target}:", text("Makefile"), flags=re.MULTILINE)


def test_the_first_researcher_commands_of_the_readme_run(tmp_path):
    for line in (
        "coterie simulate studies",
        "coterie coordinator keygen coordinator.pem",
        "coterie partner init ./bank --name bank",
    ):
        assert line in text("README.md")
        code = f"import sys; sys.argv = {shlex.split(line)!r}; from coterie.cli.main import main; main()"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_files_that_the_documentation_names_exist():
    for path in DOCS:
        for named in re.findall(
            r"`((?:privacy|models|clients|server|simulations|cli|docs|tests)/[\w/.-]+)`", path.read_text()
        ):
            assert (ROOT / named).exists(), f"{path.name} names {named}"


def test_no_paragraph_names_the_machine_it_was_written_on():
    for path in DOCS:
        assert not re.search(r"/(work|root|home)/", path.read_text(encoding="utf-8")), path.name
