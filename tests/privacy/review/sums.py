"""A ledger of a study with secure aggregation, written by hand: keys, shares, charges, openings.

Imported as `coterie.tests.privacy.review.sums`.
"""

import dataclasses
from typing import Any

from coterie.privacy.canonical import digest
from coterie.privacy.plan import Partner, Plan
from coterie.tests.privacy.review.bundles import Story

ROSTER = ("amber", "birch", "cedar", "delta")
PEERS = {name: f"key of {name}" for name in ROSTER[1:]}
SECURE: dict[str, Any] = {"privacy__trust": "secure-aggregation", "privacy__threshold": 3}


class SumStory(Story):
    """What the partner amber wrote of secure sums among four."""

    def __init__(self, **rules: Any) -> None:
        super().__init__(**{"trust": ["local", "secure-aggregation"], "peers": PEERS, **rules})

    def plan(self, **changes: Any) -> Plan:
        """A plan with this partner in its roster, of secure sums where nothing else is said."""
        plan = super().plan(**{**SECURE, **changes})
        fourth = Partner(name="delta", customers=120, key=PEERS["delta"])
        return dataclasses.replace(plan, partners=(*plan.partners, fourth))

    def keys(self, plan: Plan, epoch: int, steps: tuple[str, ...], what: str = "round-keys", **changes: Any) -> int:
        """Advertise keys, or deal shares, for an epoch."""
        body = {"plan": plan.digest(), "epoch": epoch, "steps": list(steps), "what": what}
        return self.say("keys", {"release": digest([self.size, body]), **body, **changes})

    def epoch(self, plan: Plan, epoch: int, *steps: str) -> tuple[int, int]:
        """Set up an epoch: keys, then shares."""
        return self.keys(plan, epoch, steps), self.keys(plan, epoch, steps, "dealt-shares")

    def opening(self, plan: Plan, step: str, epoch: int, what: str = "survivors-signed", **changes: Any) -> int:
        """Sign the survivors of a sum, or reveal shares for it."""
        body = {"plan": plan.digest(), "step": step, "attempt": 1, "epoch": epoch, "what": what} | {
            "transcript": digest(["transcript", step, epoch]),
            "survivors": list(ROSTER),
        }
        body |= changes
        return self.say("opening", {"release": digest(["release", body]), **body})

    def open(self, plan: Plan, step: str, epoch: int, **changes: Any) -> tuple[int, int]:
        """Sign and reveal."""
        return self.opening(plan, step, epoch, **changes), self.opening(plan, step, epoch, "revealed-shares", **changes)

    def summed(self, plan: Plan, step: str, epoch: int, **changes: Any) -> int:
        """Charge, settle and open one sum; returns the charge's place."""
        place = self.charge(plan, step)
        self.open(plan, step, epoch, **changes)
        return place


def rounds() -> list[tuple[str, ...]]:
    """The sums of the two rounds of `SumStory.plan`: two steps each, and a histogram after each."""
    return [("train/1", "train/2", "evaluate/1"), ("train/3", "train/4", "evaluate/2")]


def told(**rules: Any) -> tuple[SumStory, Plan]:
    """A whole study: one epoch a round, the third step over three survivors, and its model."""
    story = SumStory(**rules)
    plan = story.plan()
    story.consent(plan)
    places = []
    for number, steps in enumerate(rounds(), start=1):
        story.epoch(plan, number, *steps)
        for step in steps:
            least = {"survivors": list(ROSTER[:3])} if step == "train/3" else {}
            places.append(story.summed(plan, step, number, **least))
    story.receive(plan, places)
    return story, plan
