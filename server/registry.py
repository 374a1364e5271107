"""The registry: published rounds on the coordinator's disk, and where to go on after an interruption."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from coterie.models.propensity import Weights
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.record import Receipt
from coterie.server.aggregate import AdamState
from coterie.server.optimizers import OptimizerState

__all__ = ["Counts", "Progress", "Refusal", "Registry", "with_news"]

_OPTIMIZER = ("iterate", "momentum", "squares", "average")


@dataclass(frozen=True)
class Refusal:
    """A partner's no to one step, or silence, or a reply that was not taken.

    Args:
        partner: Who; a node's number where the partner is not known.
        step: "consent", "train", "evaluate" or "close"; in secure sums also "keys", "deal", "sign" or "reveal".
        round: Which round; 0 for consent.
        code: A key of `privacy.release.CODES`, or "silent", or "rejected".
        why: For "rejected", the rule that the reply broke.
    """

    partner: str
    step: str
    round: int
    code: str
    why: str = ""


Counts = Mapping[str, NDArray[np.int64]]
"""Noisy histograms by whose customers they count."""


@dataclass(frozen=True)
class Progress:
    """A study after some published round; all of it is charged or free of data.

    Args:
        plan: Digest of the plan.
        round: Rounds published.
        weights: The model after them.
        adam: Moments of FedAdam.
        histograms: Noisy histograms by round and partner.
        refusals: Who did not answer what.
        receipts: What was received and used.
        step: Sums of training that were opened and taken.
        epoch: Set-ups of secure sums that were begun.
        attempt: Of the sum that is asked for next, where an earlier one was not opened; 0 for the first.
        opening: The sums of the newest set-up.
        optimizer: Where the coordinator's optimiser is; None where it takes no steps itself.
        flown: Whose lists of a match went how many stretches of their way.
        matched: Digest of the manifest of a match that came to its end; "" before.
        overlap: What a match counted, as it was released.
        ending: Digest of the manifest of a match of which only the end is left; "" before.
    """

    plan: str
    round: int
    weights: Weights
    adam: AdamState
    histograms: Mapping[int, Counts] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    step: int = 0
    epoch: int = 0
    attempt: int = 0
    opening: tuple[str, ...] = ()
    optimizer: OptimizerState | None = None
    flown: tuple[tuple[str, int], ...] = ()
    matched: str = ""
    overlap: Mapping[str, Any] = field(default_factory=dict)
    ending: str = ""


class Registry:
    """A folder with the newest published state of one study.

    Args:
        folder: Made when missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "progress.safetensors"
        self._rounds = folder / "rounds"
        self._last = 0  # the round whose model was written last, as far as the newest state says

    def publish(self, progress: Progress) -> None:
        """Write a state, whole or not at all."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, group in _groups(progress).items():
            arrays.update({f"{name}.{i}": np.ascontiguousarray(array) for i, array in enumerate(group)})
        rounds = {str(r): {p: h.tolist() for p, h in by.items()} for r, by in progress.histograms.items()}
        refusals = [vars(refusal) for refusal in progress.refusals]
        receipts = [vars(receipt) for receipt in progress.receipts]
        head = {"plan": progress.plan, "round": progress.round, "histograms": rounds, "refusals": refusals}
        head |= {"receipts": receipts, "step": progress.step, "epoch": progress.epoch}
        head |= {"attempt": progress.attempt, "opening": list(progress.opening)}
        head |= {"flown": dict(progress.flown), "matched": progress.matched, "overlap": dict(progress.overlap)}
        head |= {"ending": progress.ending}
        if progress.optimizer is not None:
            head["steps"] = progress.optimizer.step
        metadata = {"format": "coterie/progress/v1", "progress": json.dumps(head)}
        if progress.round != self._last:  # what is published within a round is not the model after a round
            self._rounds.mkdir(exist_ok=True)
            model = {f"weights.{i}": np.ascontiguousarray(array) for i, array in enumerate(progress.weights)}
            write_durably(self._rounds / f"{progress.round:05d}.safetensors", safetensors.numpy.save(model))
        write_durably(self._path, safetensors.numpy.save(arrays, metadata))
        self._last = progress.round

    def keep_overlap(self, told: bytes) -> None:
        """Write what a match counted beside the state, as reviewers read it.

        Args:
            told: What `overlap_file` wrote.
        """
        write_durably(self.overlap, told)

    @property
    def overlap(self) -> Path:
        """Where that is."""
        return self._path.with_name("overlap.json")

    def published(self) -> dict[int, Weights]:
        """Return the model of every published round."""
        models = {}
        for path in sorted(self._rounds.glob("*.safetensors")):
            stored = safetensors.numpy.load_file(path)
            models[int(path.stem)] = tuple(stored[f"weights.{i}"] for i in range(len(stored)))
        return models

    def resume(self, plan: str) -> Progress | None:
        """Return the newest state, or None when nothing was published.

        Args:
            plan: Digest of the plan that is to go on.

        Raises:
            FileFault: What is there is damaged, or is another plan's.
        """
        if not self._path.exists():
            return None
        try:
            progress = self._stored()
        except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise FileFault(Fault(str(self._path), "is damaged", "start the study anew")) from None
        if progress.plan != plan:
            raise FileFault(Fault(str(self._path), "belongs to another plan", "choose another folder"))
        self._last = progress.round
        return progress

    def _stored(self) -> Progress:
        with safe_open(self._path, framework="np") as stored:
            head = json.loads(stored.metadata()["progress"])
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
        refusals = tuple(Refusal(**refusal) for refusal in head["refusals"])
        histograms = {
            int(r): {p: np.array(h, dtype=np.int64) for p, h in by.items()} for r, by in head["histograms"].items()
        }
        count = sum(name.startswith("weights.") for name in arrays)

        def group(name: str) -> tuple[NDArray[Any], ...]:
            return tuple(arrays[f"{name}.{i}"] for i in range(count))

        optimizer = OptimizerState(int(head["steps"]), *map(group, _OPTIMIZER)) if "steps" in head else None
        return Progress(
            str(head["plan"]),
            int(head["round"]),
            group("weights"),
            AdamState(group("first"), group("second")),
            histograms,
            refusals,
            tuple(Receipt(**receipt) for receipt in head.get("receipts", ())),
            int(head.get("step", 0)),
            int(head.get("epoch", 0)),
            int(head.get("attempt", 0)),
            tuple(str(step) for step in head.get("opening", ())),
            optimizer,
            tuple(sorted((str(name), int(count)) for name, count in head.get("flown", {}).items())),
            str(head.get("matched", "")),
            dict(head.get("overlap", {})),
            str(head.get("ending", "")),
        )


def _groups(progress: Progress) -> dict[str, tuple[NDArray[Any], ...]]:
    """Return the arrays that make a state, by the name of their group."""
    groups: dict[str, tuple[NDArray[Any], ...]] = {
        "weights": progress.weights,
        "first": progress.adam.first,
        "second": progress.adam.second,
    }
    state = progress.optimizer
    if state is None:
        return groups
    return groups | dict(zip(_OPTIMIZER, (state.weights, state.first, state.second, state.average), strict=True))


def with_news(progress: Progress, refusals: Iterable[Refusal], receipts: Iterable[Receipt]) -> Progress:
    """Return the state with further refusals and receipts, each kept once."""
    return replace(
        progress,
        refusals=tuple(dict.fromkeys((*progress.refusals, *refusals))),
        receipts=tuple(dict.fromkeys((*progress.receipts, *receipts))),
    )
