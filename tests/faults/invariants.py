"""What must hold after any fault, checked from the outside: from the wire, the outboxes, the ledgers and the models."""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from flwr.proto.message_pb2 import PushObjectRequest

from coterie.clients.door import _ANY_HISTOGRAM, _ANY_SUM, _ANY_UPDATE
from coterie.clients.export import export_bundle
from coterie.clients.folding import unfold
from coterie.clients.records import WireFault
from coterie.clients.task import initial_weights
from coterie.clients.wire import decode_release, split_head
from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan
from coterie.privacy.release import release_digest
from coterie.privacy.review.verify import verify_bundle
from coterie.server.office import Office
from coterie.server.registry import Registry

Key = tuple[str, str, str, int]
"""Partner, plan, step and attempt."""
Arrays = tuple[np.ndarray, ...]


def handed_in(objects: Iterable[tuple[str, bytes]]) -> dict[Key, list[str]]:
    """Return the digests of the releases that partners handed in, by what was asked.

    Args:
        objects: Whose node sent what, as the middle recorded it.
    """
    seen: dict[Key, list[str]] = defaultdict(list)
    for sender, body in objects:
        content = PushObjectRequest.FromString(body).object_content
        if not content.startswith(b"ConfigRecord"):
            continue
        try:
            _, answer = split_head(unfold(RecordDict({"folded": ConfigRecord.inflate(content)})))
            release = decode_release(answer, update=_ANY_UPDATE, histogram=_ANY_HISTOGRAM, summed=_ANY_SUM)
        except (WireFault, ValueError, TypeError):
            continue
        if release.arrays and hasattr(release, "attempt"):
            seen[sender, release.plan, release.step, release.attempt].append(release_digest(release))
    return dict(seen)


def not_the_same_bytes(handed: Mapping[Key, list[str]]) -> list[Key]:
    """Return the questions that got two different answers within one attempt."""
    return [key for key, digests in handed.items() if len(set(digests)) > 1]


def unpaid(folder: Path, partner: str, handed: Mapping[Key, list[str]], receipts: Iterable[Any]) -> list[str]:
    """Return releases of a partner that left, or that the coordinator has, without a settled charge of their own.

    Args:
        folder: The workspace.
        partner: Its name.
        handed: What was seen on the wire.
        receipts: What the coordinator says that it received.
    """
    left = {(key[1:], digest) for key, digests in handed.items() if key[0] == partner for digest in digests}
    with Ledger(Workspace(folder).ledger, now) as ledger:
        held = ledger.reservations()
        ledger.check_index()
        outbox = sorted(path.name for path in (folder / "outbox").glob("*.npz"))
    settled = {((r.charge.plan, r.charge.step, r.charge.attempt), r.settled) for r in held if r.settled}
    received = {((plan, r.step, r.attempt), r.release) for plan, r in receipts if r.partner == partner}
    missing = [f"{partner}: {what}" for what, digest in left | received if (what, digest) not in settled]
    if len(outbox) > len(held):
        missing.append(f"{partner}: {len(outbox)} releases in the outbox, {len(held)} charges")
    return missing


_LATER = frozenset({"checkpoints", "receipts"})  # what the end of a study settles


def unverified(folder: Path, output: Path) -> str:
    """Return what an auditor finds wrong with a partner's bundle, "" for nothing.

    The processes were stopped in the middle of a study, so nobody has cosigned the last entries yet, and there is no
    record of what was received: these questions are open, as they should be, and are no faults.
    """
    export_bundle(folder, output, now)
    verdict = verify_bundle(output, accounting=True)
    wrong = [check for check in verdict.checks if check.status != "holds" and check.name not in _LATER]
    wrong += [check for check in verdict.checks if check.status == "fails"]
    return "" if not wrong and verdict.status in {"verified", "open"} else f"{verdict.line}: {verdict.to_dict()}"[:2000]


def releases_of(folder: Path) -> dict[Key, tuple[np.ndarray, ...]]:
    """Return the arrays of the releases in an outbox, read without the project's own code."""
    found: dict[Key, tuple[np.ndarray, ...]] = {}
    for path in (folder / "outbox").glob("*.npz"):
        with np.load(path, allow_pickle=False) as stored:
            head = json.loads(stored["head"].tobytes())["header"]
            arrays = tuple(stored[f"array{i}"] for i in range(len(stored.files) - 1))
        found[head["partner"], head["plan"], head["step"], head["attempt"]] = arrays
    return found


def wrong_models(office: Office, plan: Plan, releases: Mapping[Key, tuple[np.ndarray, ...]]) -> list[int]:
    """Return the rounds whose published model is not what received releases make, by plain numpy.

    What came in a round that ended below the threshold stays in the receipts, though its partner may be gone when
    round is taken again. So a round is right where all of its receipts, or at least the threshold of them, make it.

    Args:
        office: The coordinator's folder.
        plan: Of a study of partners' own releases, with FedAvg.
        releases: Everything that partners released.
    """
    digest = plan.digest()
    registry = Registry(office.study(digest))
    progress, published = registry.resume(digest), registry.published()
    if progress is None:
        return []
    weights, wrong = initial_weights(plan), []
    for round_ in range(1, progress.round + 1):
        used = [r for r in progress.receipts if r.step == f"train/{round_}"]
        parts = {r.partner: releases.get((r.partner, digest, r.step, r.attempt), ()) for r in used}
        sets = (
            chosen
            for size in range(len(parts), plan.privacy.threshold - 1, -1)
            for chosen in itertools.combinations(sorted(parts), size)
        )
        if not any(_makes(plan, weights, {name: parts[name] for name in chosen}, published[round_]) for chosen in sets):
            wrong.append(round_)
        weights = published[round_]
    return wrong


def _makes(plan: Plan, weights: Arrays, parts: Mapping[str, Arrays], model: Arrays) -> bool:
    """Return whether some releases, averaged by the declared sizes, take weights to a model."""
    sizes = {partner.name: float(partner.customers) for partner in plan.partners}
    whole, rate = sum(sizes[name] for name in parts), plan.training.server_learning_rate
    if not all(len(arrays) == len(weights) for arrays in parts.values()):
        return False  # a release that is not in its partner's outbox
    for place, before in enumerate(weights):
        mean = sum(sizes[name] / whole * parts[name][place].astype(np.float64) for name in sorted(parts))
        if not np.allclose((before + rate * mean).astype(np.float32), model[place], rtol=1e-6, atol=1e-7):
            return False
    return True
