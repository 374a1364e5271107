"""The outbox: releases as they were made, so that an unchanged question gets the identical bytes.

A noised vector is never made twice for one step (averaging two would undo the noise); what was charged is
kept and sent again.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from coterie.privacy.canonical import canonical
from coterie.privacy.charges import Charge
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, LedgerFault
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, PoissonGaussian
from coterie.privacy.release import MaskedVector, ModelUpdate, PartnerSum, ScoreHistogram, release_digest

__all__ = ["Outbox", "Paid"]

Paid = ModelUpdate | PartnerSum | ScoreHistogram | MaskedVector
"""A release that a charge pays for."""


class Outbox:
    """Releases on disk, one file per charge.

    Args:
        folder: The workspace's outbox.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def holds(self, charge: Charge) -> bool:
        """Return whether there is a release for a charge."""
        return self._path(charge).exists()

    def keep(self, charge: Charge, release: Paid) -> None:
        """Write a release durably, before its charge is settled."""
        buffer = io.BytesIO()
        header = {"kind": release.kind, "header": release.header}
        arrays: dict[str, Any] = {f"array{i}": array for i, array in enumerate(release.arrays)}
        np.savez(buffer, allow_pickle=False, head=np.frombuffer(canonical(header), dtype=np.uint8), **arrays)
        write_durably(self._path(charge), buffer.getvalue())

    def again(self, charge: Charge, digest: str) -> Paid:
        """Read a release back.

        Args:
            charge: What paid for it.
            digest: What the ledger settled.

        Raises:
            LedgerFault: The file is missing or is not that release.
        """
        path = self._path(charge)
        fault = LedgerFault(Fault(str(path), "is not the release that the ledger settled", "restore it"))
        try:
            with np.load(path, allow_pickle=False) as stored:
                head = json.loads(stored["head"].tobytes())
                arrays = tuple(stored[f"array{i}"] for i in range(len(stored.files) - 1))
            release: Paid
            if head["kind"] == ModelUpdate.kind and isinstance(charge.event, PoissonGaussian):
                release = ModelUpdate(**head["header"], event=charge.event, arrays=arrays)
            elif head["kind"] == PartnerSum.kind and isinstance(charge.event, PoissonGaussian):
                release = PartnerSum(**head["header"], event=charge.event, arrays=arrays)
            elif head["kind"] == ScoreHistogram.kind and isinstance(charge.event, DiscreteGaussian):
                release = ScoreHistogram(**head["header"], event=charge.event, arrays=arrays)
            elif head["kind"] == MaskedVector.kind and isinstance(charge.event, DistributedGaussian):
                release = MaskedVector(**head["header"], event=charge.event, arrays=arrays)
            else:
                raise fault
        except Exception:  # noqa: BLE001 - an archive can be broken in more ways than can be listed
            raise fault from None
        if release_digest(release) != digest:
            raise fault
        return release

    def _path(self, charge: Charge) -> Path:
        return self._folder / (hashlib.sha256(charge.key.encode()).hexdigest() + ".npz")
