"""Ledgers with matches in them, written by hand by an owner that may lie, with every signature right.

Imported as `coterie.tests.privacy.review.matchstory`.
"""

import dataclasses

from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.canonical import digest
from coterie.privacy.charges import Charge
from coterie.privacy.contract import Contract
from coterie.privacy.entries import charge_body
from coterie.privacy.plan import Matching, Plan
from coterie.privacy.record import Receipt
from coterie.privacy.schedule import COUNTED
from coterie.privacy.terms import NO_METRICS, NO_TRAINING, NOTHING
from coterie.tests.clients.federation import NAMES
from coterie.tests.privacy.review.bundles import NOWHERE, Story

PEERS = {name: f"key of {name}" for name in NAMES[1:]}
RULES = {"outcomes": ["counts", "rows", "tokens"], "identifiers": ["email"], "evaluations": 5000, "disclosures": 2}
PERMITS = {"peers": PEERS, "matching": RULES, "approval": {"automatic_epsilon": 4, "disclosures": True}}


class MatchStory(Story):
    """A ledger with matches in it, written by hand."""

    def __init__(self, **rules) -> None:
        super().__init__(**{**PERMITS, **rules})

    def match(self, outcome: str = "counts", **changes) -> Plan:
        """A plan that matches this partner's customers by e-mail."""
        changes = {"privacy__threshold": 3, "model": NOTHING, "training": NO_TRAINING, "metrics": NO_METRICS, **changes}
        matching = Matching(identifier="email", outcome=outcome)
        return self.plan(
            **{"task": "matching", "contract": Contract(customer="customer"), "matching": matching, **changes}
        )

    def pay(self, plan: Plan, *groups: str, release: str = "list", attempt: int = 1, **changes) -> list[int]:
        """Charge groups for one list, and settle it."""
        event = calibrate(plan).overlap
        places = []
        for group in groups or (TRAINING, HOLDOUT):
            charge = Charge(plan.digest(), plan.purpose, f"match/{group}", attempt, group, event, "os")
            places.append(self.say("reserve", charge_body(dataclasses.replace(charge, **changes))))
        for place in places:
            self.say("settle", {"reserve": place, "release": digest(release)})
        return places

    def disclose(self, plan: Plan, release: str = "list", **changes) -> int:
        """Name a Disclosure."""
        body = {"release": digest(release), "plan": plan.digest(), "purpose": plan.purpose, "rows": NOWHERE}
        body |= {"outcome": plan.matching.outcome, "identifier": "email", "partners": list(NAMES)}
        return self.say("disclosure", {**body, **changes})

    def agree(self, plan: Plan, manifest: str = "lists", evaluations: int = 2000) -> int:
        """Accept the lists of all partners."""
        body = {"release": digest(["accepted", manifest]), "plan": plan.digest(), "manifest": digest(manifest)}
        return self.say("manifest", {**body, "evaluations": evaluations})

    def tell(self, plan: Plan, what: str, **where) -> int:
        """Let a message of a match leave."""
        body = {"plan": plan.digest(), "what": what, **where}
        return self.say("match", {"release": digest(body), **body})

    def work(self, plan: Plan) -> None:
        """Take both other lists, hand them and the own one on, and end."""
        self.tell(plan, "match-parcel", list="amber", hop=0, index=0)
        for hop, name in ((1, "birch"), (0, "cedar")):
            self.tell(plan, "parcel-taken", list=name, hop=hop, index=0, points=1000)
            self.tell(plan, "match-parcel", list=name, hop=hop + 1, index=0)
        if plan.matching.outcome == "counts":
            self.tell(plan, "overlap-counts")
        self.tell(plan, "match-ended")

    def receive_counts(self, plan: Plan, *receipts: Receipt) -> None:
        """Receive the coordinator's record: both charges, and the counts."""
        told = next(one["body"] for one in self.parts["entry"] if one["body"].get("what") == "overlap-counts")
        mine = [Receipt("amber", f"match/{group}", 1, digest("list")) for group in (TRAINING, HOLDOUT)]
        self.receive(plan, [], (*mine, Receipt("amber", COUNTED, 1, told["release"]), *receipts))
        self.parts["card"].clear()  # a match makes no model

    def whole(self, outcome: str = "counts", **changes) -> Plan:
        """A whole match."""
        plan = self.match(outcome, **changes)
        self.consent(plan)
        _ = self.pay(plan) if outcome == "counts" else self.disclose(plan)
        self.agree(plan)
        self.work(plan)
        if outcome == "counts":
            self.receive_counts(plan)
        return plan
