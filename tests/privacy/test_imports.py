"""What protects is small: `coterie.privacy` needs neither torch nor Flower, and `coterie.models` no Flower."""

import ast
import pkgutil
import subprocess
import sys

import coterie.privacy

HEAVY = ("torch", "flwr", "opacus", "pandas", "ray", "matplotlib")
MODULES = sorted(
    f"coterie.privacy.{module.name}"
    for module in pkgutil.iter_modules(coterie.privacy.__path__)
    if module.name != "training"
)


def loaded(*stages):
    """Return which heavy packages a fresh interpreter holds after each stage of code."""
    report = f"print([name for name in {HEAVY!r} if name in sys.modules])"
    script = "\n".join(["import sys", *(line for stage in stages for line in (stage, report))])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return [ast.literal_eval(line) for line in done.stdout.splitlines()]


def importing(names):
    return "\n".join(f"import {name}" for name in names)


def test_neither_the_privacy_room_nor_its_accounting_imports_a_learning_library():
    accounting = """
from coterie.privacy.accountant import epsilon
from coterie.privacy.events import DiscreteGaussian, PoissonGaussian
from coterie.privacy.renyi import curve
events = [PoissonGaussian(4.0, 0.1, 3), DiscreteGaussian(9.0, 1)]
assert epsilon(events, 1e-5) > 0 and max(curve(events)) > 0
"""
    assert len(MODULES) >= 16
    assert loaded(importing(MODULES), accounting) == [[], []]


def test_models_know_torch_alone_and_training_opacus_beside_it():
    models = ("card", "features", "metrics", "modelfile", "propensity", "reasons")
    with_models, with_training = loaded(
        importing(f"coterie.models.{name}" for name in models), "import coterie.privacy.training"
    )
    assert with_models == ["torch"]
    assert {"torch", "opacus"} <= set(with_training)
    assert "flwr" not in with_training
