"""What a plan's trust means, in words: who is protected against whom, what is assumed, and what is not covered.

All of it is what the software is built to do, or follows from the plan. What a ledger shows of it is said beside it.
"""

import math

from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.review.openings import Openings

__all__ = ["LOCAL", "declared", "opened", "secure_words", "surplus", "trust_facts", "trusted"]

LOCAL = "local"

_HOLDS = "everything still holds: each partner adds all its own noise before anything leaves"

_ALWAYS: tuple[tuple[str, str, str], ...] = (
    ("unit", "how it is enforced", "by the partner's software: all rows with one identifier are one customer"),
    ("contribution bound", "histograms", "a held-out customer is counted once, by one row drawn at random"),
    (
        *("composition inside the study", "groups compose in parallel"),
        "a customer is in one of the two groups for life, by a keyed hash, and pays for that one alone",
    ),
    (
        *("composition across studies", "method"),
        "a Rényi filter at one order, fixed by the budget: each study may be chosen after seeing all earlier results "
        "(Feldman and Zrnic 2021). Not covered: a budget that is edited after results were seen",
    ),
    ("trust", "if this partner is dishonest", "nothing here protects its customers from it"),
    (
        "several partners",
        "assumed",
        "that the other partners charge what this plan allows; more than 20 are not reckoned",
    ),
    ("randomness", "generator", "AES-256 in counter mode, under a fresh key of the operating system a mechanism"),
    ("public inputs", "normaliser", "sampling rate times the declared size, never a count of rows"),
    ("retention", "the ledger", "keeps events, digests, times and rules for ever; no row, identifier or count of rows"),
    ("retention", "rows and released models", "not in a ledger: ask the partner and the coordinator"),
)

_ALONE: tuple[tuple[str, str, str], ...] = (
    (
        *("contribution bound", "updates"),
        "a customer's loss is the weighted mean over its rows; its gradient is clipped at every step",
    ),
    (
        *("sampling", "assumption and code path"),
        "Poisson: each step takes each training customer independently. The partner's software draws the sample from "
        "the stream that draws the noise and tells nobody; an empty sample takes a step of noise",
    ),
    ("trust", "who sees what", "coordinator and partners see every round; epsilon covers all rounds together"),
    ("floating point", "updates", "float64 noise, rounded once to float32: not exactly Gaussian, and not accounted"),
    ("floating point", "histograms", "exact discrete Gaussian noise on whole numbers: no such gap"),
)

_TOGETHER: tuple[tuple[str, str, str], ...] = (
    (
        *("contribution bound", "updates"),
        "a customer's loss is the weighted mean over its rows; its gradient is clipped, and made a vector of whole "
        "numbers whose length is held to the bound in whole numbers, at every step",
    ),
    (
        *("sampling", "assumption and code path"),
        "Poisson: each step takes each training customer independently, at every partner. The partner's software draws "
        "the sample and tells nobody; an empty sample adds its share of the noise alone",
    ),
    (
        *("trust", "who sees what"),
        "coordinator and partners see every opened sum, and of one partner a vector under masks, which is random to "
        "them; epsilon covers all sums together",
    ),
    (
        *("trust", "if the coordinator is dishonest"),
        "a sum is opened over one signed list of survivors or not at all: each partner signs one list, reveals shares "
        "for that one alone, and takes keys from nobody whom its policy does not pin",
    ),
    (
        *("several partners", "a person's contributions to one sum"),
        "share its noise: at k partners they count as one contribution that is k times as long",
    ),
    (
        "floating point",
        "noise",
        "whole numbers alone, from the first bit to the last: no such gap in updates or counts",
    ),
)


def trusted(trust: str) -> str:
    """Say in one sentence who is trusted under a trust model; of one that is not known, that it cannot be told."""
    known = {
        LOCAL: "Every partner adds all its own noise; nobody else is trusted.",
        SECURE: "Only sums over several partners are opened. Each partner adds a share of the noise: the plan's "
        "threshold less its colluders must add theirs and keep it to themselves.",
    }
    return known.get(trust, "It cannot be told who is trusted: the plan is not in the bundle, or was not believed.")


def declared(trust: str) -> tuple[tuple[str, str, str], ...]:
    """Return (topic, name, value) of all that the software is built to do under a trust model.

    Args:
        trust: The plan's; "" where it is not known.
    """
    if trust == SECURE:
        return (*_ALWAYS, *_TOGETHER)
    local = (("if the coordinator is dishonest", _HOLDS), ("if other partners are dishonest, however many", _HOLDS))
    return (*_ALWAYS, *_ALONE, *(("trust", name, value) for name, value in local if trust == LOCAL))


def surplus(plan: Plan) -> float:
    """Return how many times the noise that is charged for a sum of all partners carries, if nobody colludes."""
    return math.sqrt(len(plan.partners) / (plan.privacy.threshold - plan.privacy.colluders))


def trust_facts(plan: Plan) -> list[tuple[str, str, str]]:
    """Return (topic, name, value) of what a plan says of who is trusted."""
    count, least, colluders = len(plan.partners), plan.privacy.threshold, plan.privacy.colluders
    if plan.privacy.trust != SECURE:
        return [("trust", "no part in it, where it is local", f"threshold {least}, colluders {colluders}")]
    told = [
        ("least partners over whom a sum is opened", f"{least} of {count}"),
        ("partners who may help the coordinator, at most", f"{colluders}"),
        ("who must add their noise and keep their keys", f"{least - colluders} honest partners of those in a sum"),
        ("surplus noise when all are honest", f"{surplus(plan):.3g} times what is charged for; never credited"),
    ]
    return [("trust", name, value) for name, value in told]


def secure_words(plan: Plan, openings: Openings) -> tuple[str, ...]:
    """Say what secure aggregation means for a study, to somebody who does not compute.

    Args:
        plan: Its plan, whose trust is secure aggregation.
        openings: What the ledger tells of its sums.
    """
    count, least, colluders = len(plan.partners), plan.privacy.threshold, plan.privacy.colluders
    honest = least - colluders
    return (
        f"Secure aggregation among {count} partners: only sums over at least {least} of them are opened. Nobody, the "
        "coordinator included, sees what one partner put into a sum.",
        f"What is hidden is whether a customer was in the data at all, from the coordinator together with up to "
        f"{colluders} of the partners, and from whoever gets the models.",
        f"Who must be trusted for this: of the partners in any sum, at least {honest} must add their share of the "
        "noise, keep their keys to themselves and not work with the coordinator. This partner's own share alone is not "
        "enough. It holds the others to keys that it compared with them itself.",
        f"Each share of the noise is as large as {honest} honest partners need. Where all {count} take part and nobody "
        f"colludes, a sum carries {surplus(plan):.2f} times the noise that is charged for. This is information and is "
        "not credited: every figure here is without it.",
        opened(openings),
    )


def opened(openings: Openings) -> str:
    """Say how many sums were opened."""
    if not openings.signed and not openings.revealed:
        return "This partner helped to open no sum."
    return (
        f"This partner signed the survivors of {openings.signed} sums and gave its shares to open {openings.revealed} "
        f"of them, each over at least {openings.fewest} partners, under {openings.epochs} sets of keys."
    )
