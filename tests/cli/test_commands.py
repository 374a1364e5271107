"""The command: help with examples, one clear error for bad input, and runs that survive Ctrl-C and kill -9."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from coterie.cli.main import app, main
from coterie.privacy.clock import now
from coterie.privacy.ledger import Ledger
from coterie.simulations import sources

ROOT = Path(__file__).parents[2]
ROUNDS = 12  # so many that a study is not over before it is stopped


def commands(command=None, path=()):
    command = command or get_command(app)
    for name, inner in getattr(command, "commands", {}).items():
        if getattr(inner, "commands", None):
            yield from commands(inner, (*path, name))
        else:
            yield (*path, name), inner


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


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_help_with_an_example(path, command):
    assert "Example: coterie " + " ".join(path) in (command.help or "")


def test_a_crash_prints_no_local_variables():
    assert app.pretty_exceptions_enable is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("simulate", "run", "nowhere"), "income"),
        (("simulate", "run"), "name one of"),
        (("simulate", "run", "income", "--engine", "magic"), "local, ray"),
        (("simulate", "run", "income", "--epsilon", "0"), "(0, 20]"),
        (("simulate", "run", "--resume", "nowhere"), "holds no run"),
        (("simulate", "sweep", "income", "--epsilon", "a,b"), "separated by commas"),
        (("simulate", "compare", "a", "b"), "is not a report"),
        (("partner", "budget", "nowhere"), "policy.toml"),
        (("partner", "score", "--model", "m", "--input", "i", "--output", "o"), "is not a published model"),
        (("coordinator", "sign", "nowhere.toml", "--key", "k"), "cannot be read"),
    ],
)
def test_bad_input_gives_one_error_with_its_fix(coterie, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = coterie(*arguments)
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Fix: " in lines[0]
    assert "Traceback" not in err


def test_every_fault_of_a_study_file_is_named_at_once(coterie, tmp_path):
    study = tmp_path / "study.toml"
    study.write_text('name = "x"\npurpos = "canary-91"\n[model]\nfamily = "canary-92"\n')
    code, _, err = coterie("simulate", "run", study, "--output", tmp_path / "run")
    assert code == 2
    for place in ("purpos: unknown key", "model.family: must be one of", "contract: is missing"):
        assert place in err
    assert "canary" not in err
    assert not (tmp_path / "run").exists()


def test_without_the_data_the_study_falls_back_with_a_clear_word(monkeypatch, capsys):
    monkeypatch.setattr(sources, "available", lambda dataset: dataset == "synthetic")
    from coterie.cli import simulate

    text = simulate._text("income")
    assert 'dataset = "synthetic"' in text
    said = " ".join(capsys.readouterr().err.split())
    assert "adult is not here (get it with: make data)" in said
    assert "running the study synthetic, on generated customers, instead" in said


def test_a_partner_can_be_made_previewed_and_scored(coterie, tmp_path, small_study):
    """The whole way of a partner, with real files and no simulation."""
    study = tmp_path / "study.toml"
    code, key, _ = coterie("coordinator", "keygen", tmp_path / "coordinator.pem")
    assert code == 0
    table = sources.load("synthetic")["books"]
    pq.write_table(table, tmp_path / "books.parquet")
    code, out, _ = coterie("partner", "init", tmp_path / "books", "--name", "books")
    assert code == 0
    public = next(line.split()[-1] for line in out.splitlines() if "public key" in line)
    keyed = small_study.replace('name = "books"', f'name = "books"\nkey = "{public}"')
    for name in ("grocer", "fashion", "electronics", "travel"):
        coterie("partner", "init", tmp_path / name, "--name", name)
        other = tmp_path / name / "keys" / "identity.pem"
        from coterie.privacy.identity import Identity

        keyed = keyed.replace(f'name = "{name}"', f'name = "{name}"\nkey = "{Identity.load(other).public}"')
    study.write_text(keyed)
    code, _, err = coterie(
        "coordinator", "sign", study, "--key", tmp_path / "coordinator.pem", "--output", tmp_path / "plan.json"
    )
    assert (code, err) == (0, "")

    code, _, err = coterie("partner", "preview", tmp_path / "books", tmp_path / "plan.json")
    assert code == 2
    assert "policy.toml" in err
    policy = (tmp_path / "books" / "policy.example.toml").read_text()
    from coterie.privacy.study import read_study

    plan = read_study(study).plan
    for old, new in (
        ("ed25519:...", key.strip()),
        ('customer = "customer_id"', f'customer = "{plan.contract.customer}"'),
        ('labels = ["label"]', f'labels = ["{plan.contract.label}"]'),
        ('# "propensity.example"', '"propensity.example"'),
        ("propensity.example", plan.purpose),
        ("columns = []", f"columns = {json.dumps([c.name for c in plan.contract.columns])}"),
        ("delta = 1e-6", "delta = 1e-5"),
    ):
        assert old in policy, old
        policy = policy.replace(old, new)
    (tmp_path / "books" / "policy.toml").write_text(policy)

    code, out, _ = coterie("partner", "preview", tmp_path / "books", tmp_path / "plan.json")
    assert code == 1
    assert "approved" in out
    code, _, _ = coterie(
        "partner", "seal", tmp_path / "books", tmp_path / "books.parquet", "--plan", tmp_path / "plan.json"
    )
    assert code == 0
    code, out, _ = coterie("partner", "preview", tmp_path / "books", tmp_path / "plan.json", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["consents"]
    assert all(row["runs_left"] >= 1 for row in found["budgets"])
    code, out, _ = coterie("partner", "budget", tmp_path / "books", "--json")
    assert all(row["spent"] == 0 for row in json.loads(out))


def run(*arguments, folder):
    command = [sys.executable, "-m", "coterie.cli.main", *map(str, arguments)]
    code = "import sys; from coterie.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *command[3:]],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".dev")},
    )


def wait_for(path, process):
    """Wait until a file appears; fail if the process ends first."""
    while not path.exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
            pytest.fail(process.communicate()[1])


def reservations(run_folder):
    found = {}
    for path in sorted(run_folder.glob("seed-*/partners/*/ledger.sqlite")):
        with Ledger(path, now) as ledger:
            found[path.parent] = ledger.reservations()
    return found


@pytest.fixture
def long_study(small_study, tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(
        small_study.replace("rounds = 2\nlocal_steps = 3", f"rounds = {ROUNDS}\nlocal_steps = 3").replace(
            "rounds = [2]", f"rounds = [{ROUNDS}]"
        )
    )
    return study


def test_ctrl_c_stops_after_the_round_and_resume_goes_on(tmp_path, long_study):
    process = run("simulate", "run", long_study, "--output", "here", folder=tmp_path)
    wait_for(tmp_path / "here" / "seed-0" / "coordinator" / "rounds" / "00002.safetensors", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "--resume" in err
    before = reservations(tmp_path / "here")
    assert all(r.settled for held in before.values() for r in held)
    assert 2 <= max(len(held) for held in before.values()) < ROUNDS
    process = run("simulate", "run", "--resume", "here", "--json", folder=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["release"]["refusals"] == []
    after = reservations(tmp_path / "here")
    assert {len(held) for held in after.values()} == {ROUNDS + 1}  # each round once, and one histogram


def test_a_run_keeps_its_folder_to_itself_and_after_kill_9_no_charge_is_forgotten(tmp_path, long_study):
    process = run("simulate", "run", long_study, "--output", "here", folder=tmp_path)
    wait_for(tmp_path / "here" / "seed-0" / "coordinator" / "rounds" / "00003.safetensors", process)
    process.send_signal(signal.SIGSTOP)  # so that it is still there when the second has been refused
    second = run("simulate", "run", "--resume", "here", folder=tmp_path)
    _, err = second.communicate()
    assert second.returncode == 2
    assert "is in use by another process" in err
    process.kill()
    process.communicate()
    process = run("simulate", "run", "--resume", "here", "--json", folder=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    held = reservations(tmp_path / "here")
    lost = [r for one in held.values() for r in one if r.lost]
    assert len(lost) <= 1
    # Every release in every outbox was charged, and nobody exceeds what the plan declared.
    for folder, one in held.items():
        assert len(list((folder / "outbox").glob("*.npz"))) <= len(one) <= ROUNDS + 1
    refused = json.loads(out)["release"]["refusals"]
    assert len(refused) == len(lost)
