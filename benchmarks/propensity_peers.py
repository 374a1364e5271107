"""What the table of propensity models sets beside ours: LightGBM, EBM and DP-EBM, on the very rows under the contract.

LightGBM and EBM have no privacy and see every missing value as such. DP-EBM has the bounds and vocabularies of the
contract, the whole epsilon and the table's delta, for one curator who has all rows ("pooled") or for a partner alone.
It protects a row and not a customer, so it gets one random row of each customer; it takes no missing values, so numbers
that are missing are the middle of their bounds, and words are a word more. Who a customer is decides nothing else.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from interpret.glassbox import ExplainableBoostingClassifier
from interpret.privacy import DPExplainableBoostingClassifier
from numpy.typing import NDArray
from propensity_data import DELTA, Rows
from propensity_settings import Cell
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from coterie.privacy.contract import Column, Contract

__all__ = ["chances", "confirm"]

Floats = NDArray[np.float64]

_ABSENT = "absent"
_ROUNDS, _PATIENCE, _FOLDS = 3000, 50, 5
_LIGHT = {"objective": "binary", "learning_rate": 0.05, "num_threads": 1, "verbose": -1}


def chances(contract: Contract, cell: Cell, train: Rows, test: Rows) -> Iterator[Floats]:
    """Yield the probabilities of the held-out rows by each model: one, or one for each partner that is alone.

    Args:
        contract: Of the data.
        cell: Of "lightgbm", "ebm" or "dp-ebm", "pooled" or "alone"; its seed is that of what the library draws, noise
            among it, so that results can be had again.
        train: Training rows with their partners.
        test: Held-out rows.
    """
    warnings.filterwarnings("ignore", module="lightgbm")
    for part in train.parts() if cell.mode == "alone" else [train]:
        if cell.family == "lightgbm":
            yield _lightgbm(contract, part, test, cell.seed)
        elif cell.family == "ebm":
            yield _ebm(contract, part, test, cell.seed)
        else:
            yield _dp_ebm(contract, part, test, epsilon=cell.epsilon, seed=cell.seed)


def confirm(chance: Floats, rows: Rows, found: Mapping[str, float]) -> None:
    """Check figures by another implementation of them, scikit-learn's.

    Raises:
        ArithmeticError: They differ.
    """
    others = {"auc": roc_auc_score, "ap": average_precision_score, "brier": brier_score_loss}
    for name, other in others.items():
        said = other(rows.labels.astype(int), chance, sample_weight=rows.weights)
        if abs(said - found[name]) > 1e-7:
            raise ArithmeticError(f"{name} is {said:.9f} by scikit-learn, and {found[name]:.9f} by ours")


def _lightgbm(contract: Contract, train: Rows, test: Rows, seed: int) -> Floats:
    settings = {**_LIGHT, "seed": seed}

    def shown(rows: Rows) -> pd.DataFrame:
        return pd.DataFrame(
            {c.name: _categories(c, rows) if c.values else rows.columns[c.name] for c in contract.features}
        )

    held = lightgbm.Dataset(shown(train), train.labels, weight=train.weights, free_raw_data=False)
    stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
    folds = _folds(train, seed)
    rounds = lightgbm.cv(settings, held, _ROUNDS, folds=folds, metrics="binary_logloss", callbacks=[stop])
    model = lightgbm.train(settings, held, len(rounds["valid binary_logloss-mean"]))
    return np.asarray(model.predict(shown(test)), dtype=np.float64)


def _folds(rows: Rows, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return five folds of customers, those with a label 1 and the others dealt apart."""
    random = np.random.default_rng([seed, 3])
    known, index = np.unique(rows.customer, return_inverse=True)
    positive = np.bincount(index, weights=rows.labels) > 0
    fold = np.empty(len(known), dtype=np.int64)
    for label in (False, True):
        shuffled = random.permutation(np.flatnonzero(positive == label))
        fold[shuffled] = np.arange(len(shuffled)) % _FOLDS
    return [(np.flatnonzero(fold[index] != one), np.flatnonzero(fold[index] == one)) for one in range(_FOLDS)]


def _ebm(contract: Contract, train: Rows, test: Rows, seed: int) -> Floats:
    kinds = ["nominal" if column.values else "continuous" for column in contract.features]
    model = ExplainableBoostingClassifier(
        feature_types=kinds, outer_bags=1, learning_rate=0.1, n_jobs=1, random_state=seed
    )
    model.fit(_words(contract, train, None), train.labels, sample_weight=train.weights)
    return np.asarray(model.predict_proba(_words(contract, test, None))[:, 1], dtype=np.float64)


def _dp_ebm(contract: Contract, train: Rows, test: Rows, *, epsilon: float, seed: int) -> Floats:
    first = np.random.default_rng([seed, 4]).permutation(len(train.labels))
    one = np.zeros(len(train.labels), dtype=np.bool_)
    one[first[np.unique(train.customer[first], return_index=True)[1]]] = True
    features = contract.features
    model = DPExplainableBoostingClassifier(
        feature_types=[[*column.values, _ABSENT] if column.values else "continuous" for column in features],
        privacy_bounds={column.name: (column.low, column.high) for column in features if not column.values},
        epsilon=epsilon,
        delta=DELTA,
        n_jobs=1,
        random_state=seed,
    )
    model.fit(_words(contract, train.of(one), _ABSENT), train.labels[one])
    return np.asarray(model.predict_proba(_words(contract, test, _ABSENT))[:, 1], dtype=np.float64)


def _categories(column: Column, rows: Rows) -> Any:  # noqa: ANN401 - pandas ships no types
    return pd.Categorical.from_codes(rows.columns[column.name].astype(np.int64), categories=list(column.values))


def _words(contract: Contract, rows: Rows, absent: str | None) -> pd.DataFrame:
    """Return rows with words as texts; `absent` stands for those that are missing, and the middle for such numbers."""
    shown = {}
    for column in contract.features:
        values = rows.columns[column.name]
        if column.values:
            shown[column.name] = np.array([*column.values, absent], dtype=object)[values.astype(np.int64)]
        elif absent is not None:
            middle = (float(column.low or 0.0) + float(column.high or 0.0)) / 2
            shown[column.name] = np.where(np.isnan(values), middle, values)
        else:
            shown[column.name] = values
    return pd.DataFrame(shown)
