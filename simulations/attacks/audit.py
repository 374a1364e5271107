"""The empirical audit of this build: claims attacked with canaries, the trainer measured, members guessed at."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from coterie.privacy.auditing.conformance import Check, failed
from coterie.privacy.randomness import RandomSource
from coterie.simulations.attacks.binnedcanaries import AUDITED_BINS, audit_bins, infer_rows
from coterie.simulations.attacks.binnedchecks import run_binned_checks
from coterie.simulations.attacks.canaries import CONFIDENCE, DELTA, Audited, audit_canaries
from coterie.simulations.attacks.conforming import run_checks
from coterie.simulations.attacks.membership import Membership, infer_membership
from coterie.simulations.attacks.recommendercanaries import AUDITED, audit_recommender, infer_history
from coterie.simulations.attacks.recommenderchecks import run_recommender_checks

__all__ = ["BLIND", "CAVEAT", "GATED", "TASKS", "AttackReport", "run_audit"]

TASKS = ("propensity", "bins", "recommendation")
"""What can be attacked: models of local training, models on private bins, and recommenders."""

GATED = 1.5  # the greatest claim that so few canaries can be expected to refute

CAVEAT = (
    "A pass is evidence that this build has no gross fault, and never proof that it keeps its claim: a lower bound "
    f"far below the claim is what a correct build gives. Each model's claim is attacked at {CONFIDENCE:.0%} confidence:"
    " at most one audit in twenty of a correct build refutes it by chance, and a second one tells. The audit trains on "
    "made-up customers in this process and says nothing of any partner's data, ledger or past releases."
)

BLIND = (
    "noise that is a third too small or less (the checks from inside see 2 %)",
    "noise used twice, by the final model alone (the published models and the checks see it), and by no attack on a "
    "recommender or on bins (the checks see it)",
    "a recommender's noise that is too small in some cells of its sums alone (the checks see it)",
    "a customer of a recommender who weighs too much for having more items than a canary, or who is there twice (the "
    "checks see it)",
    "too little noise in the count for bins alone, which has a tenth of the budget, unless there is next to none (the "
    "checks see 2 %)",
    "bins that a partner makes of its raw counts, not of the noisy ones (the checks see it)",
    "a customer who weighs too much for having three rows or more, or rows that differ (the checks see it)",
    "noise that somebody else can foresee, such as a seed that leaked",
    "an accountant that is wrong: audit and plan believe the same one",
    "floating-point noise that betrays the sum it was added to, in its lowest bits",
    "whatever leaves outside the training: logs, metrics, errors, timing",
    "code that behaves otherwise when it is audited",
)


@dataclass(frozen=True, kw_only=True)
class AttackReport:
    """What the audit found.

    Args:
        canaries: How many, for each claim and model.
        random_source: Name of the source of noise; only "os" is what a partner runs.
        claims: One for each epsilon and model.
        checks: Conformance, from inside.
        membership: One for each epsilon and task.
    """

    canaries: int
    random_source: str
    claims: tuple[Audited, ...]
    checks: tuple[Check, ...]
    membership: tuple[Membership, ...]

    @property
    def refuted(self) -> tuple[float, ...]:
        """The claims that do not hold."""
        return tuple(sorted({audited.claim for audited in self.claims if _broken(audited)}))

    @property
    def caught(self) -> bool:
        """Whether anything is wrong: a refuted claim, or a check that failed."""
        return bool(self.refuted or failed(self.checks))

    def verdict(self, audited: Audited) -> str:
        """Return what is said about one claim."""
        if _broken(audited):
            return "CLAIM REFUTED"
        return "no gross bug seen" if audited.claim <= GATED else "beyond what canaries can refute"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "canaries": self.canaries,
            "confidence": CONFIDENCE,
            "delta": DELTA,
            "random_source": self.random_source,
            "claims": [_claim(audited, self.verdict(audited)) for audited in self.claims],
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "membership": [dataclasses.asdict(found) for found in self.membership],
            "caught": self.caught,
            "failed_checks": list(failed(self.checks)),
            "caveat": CAVEAT,
            "blind": list(BLIND),
        }


def run_audit(
    claims: Sequence[float],
    *,
    canaries: int,
    random: RandomSource,
    show: Callable[[str], None],
    tasks: Sequence[str] = TASKS[:1],
) -> AttackReport:
    """Attack this build's own training.

    Args:
        claims: Epsilons; those above `GATED` are attacked too, and refuted only where a fault is enormous.
        canaries: How many for each claim and model.
        random: Where noise comes from: the operating system, but for tests.
        show: Told what is going on.
        tasks: What is attacked, of `TASKS`, in their order.
    """
    checks: list[Check] = []
    audited: list[Audited] = []
    membership: list[Membership] = []
    for attacked in (_ATTACKED[task] for task in TASKS if task in tasks):
        show(f"measuring {attacked.measured}")
        checks += attacked.check(random)
        for claim in claims:
            for model in attacked.models:
                show(f"epsilon {claim:g}: {model} with {canaries} canaries")
                audited.append(attacked.audit(model, claim, canaries=canaries, random=random))
            show(f"epsilon {claim:g}: {attacked.guessing}")
            membership.append(attacked.infer(claim, random=random))
    return AttackReport(
        canaries=canaries,
        random_source=random.name,
        claims=tuple(audited),
        checks=tuple(checks),
        membership=tuple(membership),
    )


class _Audit(Protocol):
    def __call__(self, name: str, claim: float, /, *, canaries: int, random: RandomSource) -> Audited:
        """Attack a model's claim."""


class _Infer(Protocol):
    def __call__(self, claim: float, /, *, random: RandomSource) -> Membership:
        """Guess at members."""


@dataclass(frozen=True, kw_only=True)
class _Attacked:
    """How one task is attacked, and in which words that is told."""

    models: tuple[str, ...]
    audit: _Audit
    check: Callable[[RandomSource], Sequence[Check]]
    infer: _Infer
    measured: str
    guessing: str


def _audit_local(_: str, claim: float, /, *, canaries: int, random: RandomSource) -> Audited:
    return audit_canaries(claim, canaries=canaries, random=random)


_ATTACKED = {
    TASKS[0]: _Attacked(
        models=("logistic",),
        audit=_audit_local,
        check=run_checks,
        infer=infer_membership,
        measured="noise, sampling and clipping",
        guessing="guessing members",
    ),
    TASKS[1]: _Attacked(
        models=AUDITED_BINS,
        audit=audit_bins,
        check=run_binned_checks,
        infer=infer_rows,
        measured="sums on private bins",
        guessing="guessing whom a model on private bins knows",
    ),
    TASKS[2]: _Attacked(
        models=AUDITED,
        audit=audit_recommender,
        check=run_recommender_checks,
        infer=infer_history,
        measured="recommenders' sums",
        guessing="guessing whose histories a recommender knows",
    ),
}


def _broken(audited: Audited) -> bool:
    return audited.most > audited.claim


def _claim(audited: Audited, verdict: str) -> dict[str, Any]:
    return {
        "model": audited.model,
        "epsilon": audited.claim,
        "delta": DELTA,
        "event": str(audited.event),
        "gated": audited.claim <= GATED,
        "lower_bounds": {
            "snj_final": audited.snj_final,
            "fdp_final": audited.fdp_final,
            "fdp_iterates": audited.fdp_iterates,
        },
        "verdict": verdict,
    }
