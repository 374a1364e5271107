"""The house keeps its shape: imports run one way, modules say what they hold, nothing asserts in shipped code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("privacy", "models", "processes", "clients", "server", "simulations", "cli")
DEPLOYED = sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file())
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

# What each room may import of the others; the server speaks the partners' language and knows no more of them.
MAY_IMPORT = {
    "privacy": set(),
    "models": set(),
    "processes": {"privacy.errors", "privacy.durable", "privacy.plain"},
    "clients": {"privacy", "models", "processes"},
    "server": {
        "privacy",
        "models",
        "processes",
        "clients.bundle",
        "clients.folding",
        "clients.matchwire",
        "clients.wire",
        "clients.sumwire",
        "clients.task",
    },
    "simulations": {"privacy", "models", "processes", "clients", "server"},
    "cli": {"privacy", "models", "processes", "clients", "server", "simulations"},
}
# Libraries that a room must not know.
MUST_NOT_KNOW = {
    "privacy": {"flwr", "pandas", "ray"},
    "models": {"flwr", "opacus", "cryptography", "pandas", "ray"},
    "processes": {"flwr", "torch", "opacus", "cryptography", "numpy", "pandas", "pyarrow", "ray"},
    "clients": {"ray", "pandas"},
    "server": {"opacus", "pandas", "ray", "pyarrow"},
}
KNOWS_FLOWER = {
    "clients/app.py",
    "clients/door.py",
    "clients/folding.py",
    "clients/matchwire.py",
    "clients/records.py",
    "clients/sumwire.py",
    "clients/wire.py",
}
OPENS_ROWS = {
    "clients/opening.py",
    "clients/node.py",
    "clients/binnedsums.py",
    "clients/parts.py",
    "clients/work.py",
    "clients/training.py",
    "clients/measuring.py",
    "clients/intake.py",
    "clients/identifying.py",  # for the check of columns that every intake makes
    "clients/scoring.py",
    "simulations/rows.py",
}
# Who may hold the vault: whoever reads, changes or checks what is sealed, and the commands that lend it to them.
HOLDS_THE_VAULT = {
    "clients/vault.py",
    "clients/cellfiles.py",
    "clients/cellkeys.py",
    "clients/cellring.py",
    "clients/checkup.py",
    "clients/consent.py",
    "clients/erasing.py",
    "clients/identifying.py",
    "clients/intake.py",
    "clients/matched.py",
    "clients/matchfiles.py",
    "clients/matching/ending.py",
    "clients/matching/node.py",
    "clients/preflight.py",
    "clients/recommending.py",
    "clients/rehearsal.py",
    "clients/rekeying.py",
    "clients/scoring.py",
    "clients/sealing.py",
    "clients/work.py",
    "cli/cells.py",
    "cli/erasing.py",
    "cli/identifying.py",
    "cli/profiling.py",
    "cli/sealing.py",
    "simulations/partners.py",
    "simulations/rows.py",
}
OPENS_INTERACTIONS = {
    "clients/interactions.py",
    "clients/intake.py",
    "clients/listmaking.py",
    "clients/recommending.py",
    "clients/work.py",
    "simulations/attacks/desk.py",
    "simulations/histories.py",
}
# Identifiers are opened for a match and by no training; what matches left is read by who works with it.
OPENS_IDENTIFIERS = {"clients/work.py"}
# A reason stands in the module's own docstring for each module over 300 lines: none at present.
LONGEST = 300


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_run_one_way(path):
    room = name(path).split("/")[0]
    for imported in imports(path):
        parts = imported.split(".")
        assert parts[0] not in ROOMS, f"{imported}: import it as coterie.{imported}"
        if parts[0] == "coterie" and len(parts) > 1 and parts[1] != room:
            allowed = MAY_IMPORT[room]
            assert parts[1] in allowed or ".".join(parts[1:3]) in allowed or imported == "coterie.clients", imported
        assert parts[0] not in MUST_NOT_KNOW.get(room, set()), imported


@pytest.mark.parametrize("path", [p for p in MODULES if name(p).startswith("clients/")], ids=name)
def test_flower_is_known_to_few_modules_of_the_partner(path):
    """Those that speak with it, and those that run its processes."""
    if name(path) not in KNOWS_FLOWER and not name(path).startswith("clients/running/"):
        assert not [i for i in imports(path) if i.split(".")[0] == "flwr"]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_named_modules_touch_opened_rows(path):
    if name(path) not in OPENS_ROWS:
        assert not [i for i in imports(path) if i.startswith("coterie.clients.opening")]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_named_modules_hold_the_vault(path):
    if name(path) not in HOLDS_THE_VAULT:
        assert not [i for i in imports(path) if i.startswith("coterie.clients.vault.")]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_named_modules_touch_interactions(path):
    if name(path) not in OPENS_INTERACTIONS:
        rooms = ("coterie.clients.purchases", "coterie.clients.interactions")
        assert not [i for i in imports(path) if i.startswith(rooms)]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_named_modules_open_identifiers(path):
    if name(path) not in OPENS_IDENTIFIERS and not name(path).startswith("clients/matching/"):
        opens = {"coterie.clients.identifierrows.open_identifiers", "coterie.clients.identifierrows"}
        assert not [i for i in imports(path) if i in opens]


def test_only_the_vault_chooses_rows_by_segment():
    users = [name(path) for path in MODULES if "coterie.clients.groups.segment_rows" in set(imports(path))]
    assert users == ["clients/opening.py"]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_says_what_it_holds_and_is_short(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no docstring"
    assert len(text.splitlines()) <= LONGEST
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)], "assert in shipped code"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            length = (node.end_lineno or 0) - node.lineno - len(docstring.splitlines())
            assert length <= 50, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_what_a_module_exports_is_sorted_and_there(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    exports = [n for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"]
    exports += [n for n in tree.body if isinstance(n, ast.AnnAssign) and getattr(n.target, "id", "") == "__all__"]
    assert len(exports) == 1, "__all__ is missing"
    listed = ast.literal_eval(exports[0].value)
    defined = {n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.Import):
            defined |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            defined |= {t.id for target in node.targets for t in ast.walk(target) if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign):
            defined.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            defined |= {alias.asname or alias.name for alias in node.names}
    assert set(listed) <= defined
    functions = (n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    public = {n.name for n in functions if not n.name.startswith("_")}
    if not name(path).startswith("cli/"):  # there the decorator exports them, as commands
        assert public <= set(listed), "a public function is not exported"


def modules_loaded_by(code):
    command = f"import sys; sys.path.insert(0, {str(ROOT / '.dev')!r}); {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    return {module.split(".")[0] for module in done.stdout.split()}


def test_the_help_opens_without_the_heavy_libraries():
    loaded = modules_loaded_by("import coterie.cli.main")
    assert not loaded & {"torch", "flwr", "opacus", "ray", "matplotlib", "pyarrow", "dp_accounting"}


def test_the_ledger_and_its_accounting_open_without_torch():
    loaded = modules_loaded_by(
        "import coterie.privacy.ledger, coterie.privacy.accountant, coterie.privacy.statement, coterie.privacy.plan"
    )
    assert not loaded & {"torch", "flwr", "opacus", "ray"}


def test_no_registry_host_is_named():
    for path in [
        *MODULES,
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *DEPLOYED,
    ]:
        text = path.read_text(encoding="utf-8").lower()
        for host in ("pypi." + "org", "pythonhosted", "files." + "python", "registry.npm"):
            assert host not in text, f"{name(path)} names {host}"
