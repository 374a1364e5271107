"""The ledger once more, entry by entry: who consented to what, what was charged, and whether each rule was kept.

Each kind of entry has one method. A rule that is broken becomes a finding with the entry's number; reading goes on,
so that one broken rule does not hide the next.
"""

from collections.abc import Callable, Mapping

from coterie.privacy.canonical import digest
from coterie.privacy.charges import Charge, Entry, charge_of, year_of
from coterie.privacy.compliance import breaches
from coterie.privacy.entries import check_entry
from coterie.privacy.errors import Fault, FileFault, LedgerFault, PlanFault
from coterie.privacy.policy import Policy
from coterie.privacy.review.approvals import Approvals
from coterie.privacy.review.consents import (
    Consented,
    Unit,
    charge_faults,
    consent_faults,
    curve_faults,
    declared_events,
    release_name,
)
from coterie.privacy.review.course import Course
from coterie.privacy.review.findings import Findings
from coterie.privacy.review.matches import KINDS, Matches
from coterie.privacy.review.openings import sum_faults
from coterie.privacy.review.receipts import Receipts
from coterie.privacy.review.sealings import Sealings
from coterie.privacy.review.spent import TOLERANCE, Spent, moves_order
from coterie.privacy.review.verdict import Point, Refusal, Rules
from coterie.privacy.schema import parse
from coterie.privacy.shapes import SHAPES, is_time
from coterie.privacy.signed import SignedPlan

__all__ = ["Replay"]

_EARLIER = frozenset({"consent", "refusal", "reserve", "settle", "lost"})  # kinds of version 1


class Replay:
    """The state of a ledger while its entries are read.

    Args:
        key: The partner's public key, as the bundle says it.
        name: The partner's name, likewise.
        plans: Signed plans by digest, as bytes.
        records: Signed records as bytes, by the plan that they speak of.
        findings: Where what does not hold is written down.
    """

    def __init__(
        self, key: str, name: str, *, plans: dict[str, bytes], records: dict[str, bytes], findings: Findings
    ) -> None:
        self.key, self.name = key, name
        self._plans, self.findings = plans, findings
        self.matches = Matches(name)
        self.receipts = Receipts(name, records, findings, self.matches)
        self.spent = Spent()
        self.studies: dict[str, Consented] = {}
        self.open: dict[int, Charge] = {}
        self.course = Course()
        self.refusals: list[Refusal] = []
        self.sealings = Sealings()
        self.policies: dict[str, Policy] = {}
        self.carried = 0
        self.rules: list[Rules] = []
        self._in_force = ""
        self._waiting: dict[str, list[tuple[Entry, Consented]]] = {}  # consents whose policy is not known yet
        self._held: set[tuple[str, str]] = set()  # plans that were held against a policy
        self._unit, self._approvals = Unit(), Approvals()
        self._opened = False
        self.last = ""
        self._by_kind: Mapping[str, Callable[[Entry], None]] = {
            "opened": self._open,
            "policy": self._policy,
            "consent": self._consent,
            "approval": self._approvals.take,
            "refusal": self._refusal,
            "reserve": self._reserve,
            "settle": lambda entry: self._end(entry, "settled"),
            "lost": lambda entry: self._end(entry, "lost"),
            "model": self._model,
            "keys": self._sum,
            "opening": self._sum,
            "vault": self._vault,
            "erasure": self._vault,
            **dict.fromkeys(KINDS, self._match),
        }

    @property
    def coordinators(self) -> tuple[str, ...]:
        """Public keys that the policies named, sorted."""
        return tuple(sorted({policy.coordinator for policy in self.policies.values()}))

    def take(self, entry: Entry) -> None:
        """Read the next entry."""
        shape = SHAPES.get(entry.kind)
        if shape is None:
            self.findings.open("kinds", entry.seq, "is of a kind that this version does not know: use a newer coterie")
            return
        try:
            check_entry(entry)
            self._time(entry)
            if not self._opened and entry.kind not in {"opened", *_EARLIER}:
                self.findings.fail("entries", entry.seq, "stands before the entry that says whose ledger it is")
            self._by_kind[entry.kind](entry)
        except LedgerFault as error:
            self.findings.fail("entries", entry.seq, error.faults[0].rule)

    def finish(self) -> None:
        """Say what is left over at the end of the ledger."""
        if not self._opened:
            self.findings.fail("entries", 0, "no entry says whose ledger it is")
        if self.last and self.spent.most(year_of(self.last)) > 1 + TOLERANCE:
            self.findings.open("budgets", 0, "more is spent than the last policy allows: an earlier one allowed more")
        for plan, study in self.studies.items():
            if study.settled and plan not in self.receipts.records:
                says = "no record of the coordinator says what it received for this study"
                self.findings.open("receipts", study.entry, says)
        for waiting in self._waiting.values():
            for entry, _ in waiting:
                rule = "its policy is not in the ledger, so whether the plan kept it was not checked"
                self.findings.open("consents", entry.seq, rule)
        for plan, says in self.matches.left(self.open):
            self.findings.fail("matching", self.studies[plan].entry if plan in self.studies else 0, says)
        for seq, says in self.sealings.left_open():
            self.findings.open("vault", seq, says)

    def _time(self, entry: Entry) -> None:
        if entry.at == self.last:
            return
        if not is_time(entry.at):
            raise LedgerFault(Fault("at", "has no time in UTC, as YYYY-MM-DDTHH:MM:SS+00:00", "ask for it again"))
        # Equal forms compare as texts; those of version 1 may have a fraction of a second.
        if entry.at[:19] < self.last[:19]:
            told = self.findings.fail if self._opened else self.findings.open
            told("time", entry.seq, "its time lies before the one of the entry before it")
        self.last = max(entry.at, self.last)

    def _open(self, entry: Entry) -> None:
        body = entry.body
        if (body["key"], body["partner"]) != (self.key, self.name):
            self.findings.fail("entries", entry.seq, "says that the ledger is another partner's")
        if body["carried"] != entry.seq - 1 or self._opened:
            self.findings.fail("entries", entry.seq, "opens a ledger that was open")
        self._opened = True
        self.carried = entry.seq - 1

    def _policy(self, entry: Entry) -> None:
        content, named = entry.body["content"], entry.body["policy"]
        try:
            policy = parse(Policy, content, place="policy")
        except FileFault:
            self.findings.fail("consents", entry.seq, "holds a policy that breaks its schema")
            return
        if digest(content) != named:
            self.findings.fail("consents", entry.seq, "holds another policy than the one it names")
        before = self.spent.policy
        if before is not None and self.spent.groups() and moves_order(before, policy):
            says = "moves the Rényi order of a budget in use, which the theorem does not cover"
            self.findings.open("budgets", entry.seq, says)
        first = not self._in_force
        self.policies[named], self._in_force = policy, named
        self.rules.append(Rules(entry.seq, entry.at, named, dict(content)))
        if policy.coordinator == self.key:
            self.findings.fail("consents", entry.seq, "names the partner itself as its coordinator")
        self.spent.under(policy)
        if first:
            self._carried_over(entry, named)
        for earlier, study in self._waiting.pop(named, []):
            self._permitted(earlier, study, policy)

    def _carried_over(self, entry: Entry, named: str) -> None:
        """Hold what was charged before the first policy in the ledger against that policy."""
        if self.spent.most(year_of(self.last)) > 1 + TOLERANCE:
            same = set(self._waiting) <= {named}
            told = self.findings.fail if same else self.findings.open
            told("budgets", entry.seq, "finds more charged before it than its budgets allow")

    def _consent(self, entry: Entry) -> None:
        body = dict(entry.body)
        events = declared_events(body)
        study = Consented(entry.seq, entry.at, body, None, events)
        self.findings.fail_all("accountants", entry.seq, curve_faults(study))
        known = self.studies.get(body["plan"])
        if known is not None and known.events != events:
            self.findings.fail("consents", entry.seq, "changes what a study may charge that was consented to before")
            return
        self.findings.fail_all("consents", entry.seq, self._unit.faults(body))
        study = known or self.studies.setdefault(body["plan"], study)
        if self._in_force and body["policy"] != self._in_force:
            self.findings.fail("consents", entry.seq, "names another policy than the one in force")
        policy = self.policies.get(body["policy"])
        if policy is None:
            self._waiting.setdefault(body["policy"], []).append((entry, study))
        else:
            self._permitted(entry, study, policy)

    def _permitted(self, entry: Entry, study: Consented, policy: Policy) -> None:
        """Hold a consent against the policy that it names."""
        for says in self.sealings.against(entry, entry.body["purpose"], policy):
            self.findings.fail("vault", entry.seq, says)
        data = self._plans.get(entry.body["plan"])
        if data is None:
            self.findings.open("consents", entry.seq, "its plan is not in the bundle")
            return
        try:
            plan = SignedPlan.from_bytes(data, coordinator=policy.coordinator).plan
        except PlanFault as error:
            self.findings.fail("consents", entry.seq, f"its plan {error.faults[0].rule}")
            return
        study.plan = plan
        faults = consent_faults(entry, plan, policy, partner=(self.name, self.key))
        faults += [f"was given {says}" for says in self._approvals.against(entry, plan, policy)]
        study.sound = study.sound and not faults
        self.findings.fail_all("consents", entry.seq, faults)

    def _refusal(self, entry: Entry) -> None:
        body = entry.body
        self.refusals.append(Refusal(entry.seq, entry.at, str(body["plan"]), tuple(body["codes"])))

    def _reserve(self, entry: Entry) -> None:
        charge = charge_of(entry)
        study = self.studies.get(charge.plan)
        self.open[entry.seq] = charge
        for says in self.sealings.charged(entry, self.policies.get(self._in_force), self._in_force):
            self.findings.fail("vault", entry.seq, says)
        if charge.random != "os":
            self.findings.fail("randomness", entry.seq, "its noise was not drawn from the system's secret randomness")
        if study is None:
            self.findings.fail("charges", entry.seq, "charges for a plan without consent")
        else:
            self._declared(entry, charge, study)
        if self._opened and not self._in_force:
            self.findings.fail("budgets", entry.seq, "charges while no policy is in force")
        for limit, share in self.spent.add(charge, entry.at):
            if share > 1 + TOLERANCE:
                self.findings.fail("budgets", entry.seq, f"exceeds the {limit.name} for group {charge.group}")
            if self.course.wants():
                self.course.keep(Point(entry.seq, entry.at, limit.span, charge.group, share, charge.plan))

    def _declared(self, entry: Entry, charge: Charge, study: Consented) -> None:
        """Hold a charge against what the consent declared, and against the policy in force now."""
        self.findings.fail_all("charges", entry.seq, charge_faults(charge, entry.at, study))
        study.took(charge)
        policy = self.policies.get(self._in_force)
        for says in self._approvals.against(entry, study.plan, policy):
            self.findings.fail("charges", entry.seq, f"charges {says}")
        if study.plan is None or policy is None or (charge.plan, self._in_force) in self._held:
            return
        self._held.add((charge.plan, self._in_force))
        for reason in breaches(study.plan, policy, self.name):
            says = f"charges for a plan that the policy in force does not permit any more ({reason.code})"
            self.findings.fail("charges", entry.seq, says)

    def _end(self, entry: Entry, how: str) -> None:
        charge = self.open.pop(entry.body["reserve"], None)
        if charge is None:
            self.findings.fail("charges", entry.seq, "ends a charge that is not open")
            return
        study = self.studies.get(charge.plan)
        if study is not None:
            study.ends[how] += 1
            if how == "settled":
                study.paid.add((charge.step, charge.attempt))
                study.settled.add((charge.step, charge.attempt, release_name(entry.body["release"])))
                self.findings.fail_all("openings", entry.seq, study.sums.settled(charge))
                self.findings.fail_all("matching", entry.seq, self.matches.settled(charge, entry.body["release"]))

    def _sum(self, entry: Entry) -> None:
        study = self.studies.get(entry.body["plan"])
        if study is None:
            self.findings.fail("openings", entry.seq, "is about a secure sum of a study without consent")
            return
        for says in self._approvals.against(entry):
            self.findings.fail("openings", entry.seq, f"goes on {says}")
        faults = sum_faults(entry, study.plan, study.sums, name=self.name, paid=study.paid)
        self.findings.fail_all("openings", entry.seq, faults)

    def _match(self, entry: Entry) -> None:
        study, policy = self.studies.get(entry.body["plan"]), self.policies.get(self._in_force)
        self.findings.fail_all("matching", entry.seq, self.matches.take(entry, study, policy))
        if entry.kind == "disclosure":
            self.findings.fail_all("vault", entry.seq, self.sealings.against(entry, entry.body["purpose"], policy))
        known = (study.plan, policy) if study and entry.kind == "disclosure" else (None, None)
        for says in self._approvals.against(entry, *known):
            self.findings.fail("matching", entry.seq, f"goes on with a match {says}")

    def _model(self, entry: Entry) -> None:
        self.receipts.take(entry, self.studies.get(entry.body["plan"]), self.policies.get(self._in_force))

    def _vault(self, entry: Entry) -> None:
        read = self.sealings.take if entry.kind == "vault" else self.sealings.erasure
        self.findings.fail_all("vault", entry.seq, read(entry))
