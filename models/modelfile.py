"""A published model as one safetensors file: weights, and what is needed to use them.

The metadata holds one JSON text under "coterie": family, hidden width, contract, plan digest, the statement of its
guarantee, and how its scores are calibrated, where the study released that. Nothing in the file can run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from coterie.models.propensity import Weights

__all__ = ["ModelFile", "ModelFileError", "load_model", "model_bytes"]

_FORMAT = "coterie/model/v1"


class ModelFileError(ValueError):
    """The file is not a model of this format."""


@dataclass(frozen=True)
class ModelFile:
    """A model.

    Args:
        family: "logistic" or "mlp".
        hidden: Width of the hidden layer.
        weights: In parameter order.
        about: Contract, plan digest, guarantee, private calibration where there is one, as plain JSON values.
    """

    family: str
    hidden: int
    weights: Weights
    about: Mapping[str, Any]


def model_bytes(model: ModelFile) -> bytes:
    """Return the file's bytes; equal models give equal bytes."""
    tensors = {f"weights.{i}": np.ascontiguousarray(array) for i, array in enumerate(model.weights)}
    head = {"format": _FORMAT, "family": model.family, "hidden": model.hidden, "about": dict(model.about)}
    return safetensors.numpy.save(tensors, {"coterie": json.dumps(head, sort_keys=True)})


def load_model(path: Path) -> ModelFile:
    """Read a model.

    Raises:
        ModelFileError: The file is missing, damaged, or of another format.
    """
    try:
        with safe_open(path, framework="np") as stored:
            head = json.loads((stored.metadata() or {})["coterie"])
            names = sorted(stored.keys(), key=lambda name: int(name.split(".")[1]))
            weights = tuple(stored.get_tensor(name) for name in names)
        if head["format"] != _FORMAT:
            raise KeyError(_FORMAT)
        return ModelFile(str(head["family"]), int(head["hidden"]), weights, head["about"])
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, OverflowError, RecursionError):
        raise ModelFileError(f"{path} is not a model of format {_FORMAT}") from None
