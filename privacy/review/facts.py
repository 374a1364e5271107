"""Facts about one study, one by one, each with what it rests on.

They are what NIST SP 800-226 (evaluating differential privacy guarantees, 2025) and the registry of deployments
(Nanayakkara, Ghazi, Vadhan 2025, arXiv 2509.13509) ask for. A fact is
    recomputed   from charges and plan, by the accountants of this review;
    verified     said by something signed that every check concerned holds of;
    declared     somebody's word, or what the software is built to do: no file can show that it did.
"""

from dataclasses import dataclass

from coterie.privacy.accountant import ADD_REMOVE, REPLACE_ONE
from coterie.privacy.calibration import HOLDOUT
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.plain import plain
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.renyi import ORDERS, Filter
from coterie.privacy.review.composition import (
    Composition,
    by_partners,
    composition,
    matches_plan,
    plan_of,
    replaced,
    standing,
    worst_profile,
)
from coterie.privacy.review.divergence import rho
from coterie.privacy.review.fact import BASES, DECLARED, RECOMPUTED, TOPICS, VERIFIED, Fact
from coterie.privacy.review.holding import NOTHING, at_rest_facts
from coterie.privacy.review.matchwords import (
    NOT_COVERED,
    declared_match,
    discloses,
    disclosure_words,
    planned_match,
    public_match,
)
from coterie.privacy.review.profile import words
from coterie.privacy.review.trust import declared, opened, trust_facts
from coterie.privacy.review.verdict import Study, Verdict
from coterie.privacy.review.verify import CANNOT_PROVE
from coterie.privacy.statement import not_covered, not_covered_by

__all__ = ["BASES", "DECLARED", "RECOMPUTED", "TOPICS", "VERIFIED", "Fact", "facts"]

_NO_PLAN = "cannot be told: the study's plan is not in the bundle, or was not believed"
_ZCDP = "zero-concentrated differential privacy"
_METHOD = "fixed in advance by the consent, so privacy loss distributions compose; two accountants that share nothing"
_PLANNED = ("unit", "contribution bound", "guarantee", "sampling", "trust", "public inputs", "tuning", "retention")
_FIGURES = (
    *("neighbouring relation", "guarantee", _ZCDP, "privacy profile", "composition inside the study", "sampling"),
    "several partners",
)


@dataclass(frozen=True)
class _Case:
    """A study under description."""

    verdict: Verdict
    study: Study
    plan: Plan | None
    found: Composition | None

    def planned(self, topic: str, name: str, value: str) -> Fact:
        """Return what the signed plan says, or that there is no plan."""
        return self.checked(topic, name, value, "consents") if self.plan else Fact(topic, name, _NO_PLAN, DECLARED)

    def checked(self, topic: str, name: str, value: str, *checks: str) -> Fact:
        """Return a fact that rests on checks: verified where they hold, otherwise claimed."""
        basis, but = standing(self.verdict, checks, good=VERIFIED, bad=DECLARED)
        return Fact(topic, name, value + but, basis)

    @property
    def silent(self) -> str:
        """Why there is no figure."""
        if self.plan is None:
            return _NO_PLAN
        if discloses(self.plan):
            return f"{NOT_COVERED}: what comes out is exact"
        if self.found is not None and self.found.void:
            return "no guarantee: some noise in this ledger was not drawn from the system's secret randomness"
        return "not recomputed: the review was made without its accountants, or could not read the charges back"


def facts(verdict: Verdict, study: Study) -> tuple[Fact, ...]:
    """Return every fact about a study, by topic.

    Args:
        verdict: What a review found.
        study: One of its studies.
    """
    found = composition(verdict, study)
    case = _Case(verdict, study, plan_of(verdict, study), found)
    rows = [
        Fact("verdict", "what the review found", verdict.line, RECOMPUTED),
        *_planned(case),
        *_charges(case),
        *(_figures(case, found) if found is not None and not found.void else _nothing(case)),
        *_budgets(case),
        *_public(case),
        *_at_rest(case),
        *(Fact(topic, name, text, DECLARED) for topic, name, text in _declared(case)),
        *_uncovered(case),
        *(Fact("cannot be proved", f"{n}", text, DECLARED) for n, text in enumerate(CANNOT_PROVE, start=1)),
    ]
    ordered = sorted(rows, key=lambda fact: TOPICS.index(fact.topic))
    return tuple(Fact(fact.topic, plain(fact.name), plain(fact.value), fact.basis) for fact in ordered)


def _declared(case: _Case) -> tuple[tuple[str, str, str], ...]:
    """What the software is built to do."""
    if case.plan is not None and case.plan.matches and case.plan.matching is not None:
        return declared_match(case.plan.matching)
    return declared(case.study.trust)


def _uncovered(case: _Case) -> list[Fact]:
    """What no epsilon covers: Disclosures, by the ledger, and what is true of every such plan."""
    told = [one for one in case.verdict.disclosures if one.plan == case.study.plan]
    rows = [
        case.checked("not covered", f"disclosure, entry {one.entry}", disclosure_words(one), "matching") for one in told
    ]
    texts = not_covered_by(case.plan) if case.plan is not None else not_covered(case.study.trust)
    return [*rows, *(Fact("not covered", f"{n}", text, DECLARED) for n, text in enumerate(texts, start=1))]


def _planned(case: _Case) -> list[Fact]:
    """What the signed plan says."""
    plan, study = case.plan, case.study
    if plan is None:
        return [Fact(topic, "from the plan", _NO_PLAN, DECLARED) for topic in _PLANNED]
    contract, privacy, training = plan.contract, plan.privacy, plan.training
    last = ("retention", "last day on which the partner may work for the plan", study.expires)
    if plan.matches and plan.matching is not None:
        return [case.planned(*one) for one in (*planned_match(plan, plan.matching), last)]
    each = "a round, each one secure sum" if privacy.trust == SECURE else "an update"
    many = "an error" if contract.too_many_rows == "error" else "cut to a random sample"
    told = [
        ("unit", "whose presence is hidden", privacy.unit),
        ("unit", "column that names a customer", contract.customer),
        ("contribution bound", "most rows of a customer", f"{contract.rows_per_customer}; more are {many}"),
        ("contribution bound", "clip: greatest length of a customer's gradient", f"{training.clip:g}, all its rows"),
        ("guarantee", "what the plan may spend on a customer", f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g}"),
        ("sampling", "rate", f"{training.sample_rate:g}, a public constant; {training.local_steps} steps {each}"),
        ("trust", "model", privacy.trust),
        *trust_facts(plan),
        last,
    ]
    return [case.planned(*one) for one in told]


def _matches(case: _Case) -> bool:
    return case.plan is not None and case.plan.matches


def _charges(case: _Case) -> list[Fact]:
    """What the ledger says was charged, and how."""
    rows = [
        case.checked("randomness", "source that every charge names", "the operating system", "randomness"),
        case.checked("composition inside the study", "charges without consent", "none", "charges", "consents"),
    ]
    for group in case.study.groups:
        events = "; ".join(f"{count} times {text}" for text, count in group.events) or "nothing"
        told = f"{group.charges} of {group.declared} that are allowed: {events}"
        rows.append(case.checked("guarantee", f"charges, group {group.group}", told, "charges"))
        for event in (event for event, _ in group.allowed if isinstance(event, DistributedGaussian)):
            units = f"{event.sensitivity}, beside noise of scale {event.share} from each partner"
            named = f"greatest length in units, group {group.group}"
            rows.append(case.checked("contribution bound", named, units, "consents", "accountants"))
    if case.study.openings is not None:
        rows.append(case.checked("trust", "secure sums", opened(case.study.openings), "openings"))
    histograms = sum(group.charges for group in case.study.groups if group.group == HOLDOUT)
    made = "none: nothing is measured" if _matches(case) else f"{histograms} histograms, which every metric comes from"
    rows.append(case.checked("metrics", "charged", made, "charges"))
    for model in case.verdict.models:
        if model.plan == case.study.plan:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in model.metrics) or "none"
            rows.append(Fact("metrics", "in the coordinator's signed record", figures, DECLARED))
    return rows


def _nothing(case: _Case) -> list[Fact]:
    """Say for every figure why there is none."""
    return [Fact(topic, "figures", case.silent, DECLARED) for topic in _FIGURES]


def _figures(case: _Case, found: Composition) -> list[Fact]:
    """What the accountants say."""
    both = replaced(found)
    value = f"{both}; at most what the study may charge, worst of both groups and of a change between them"
    wrong = "; ".join(matches_plan(found)) or "yes"
    _, but = standing(case.verdict, ("charges", "accountants"), good="", bad="")
    rows = [
        ("neighbouring relation", "stated", f"{ADD_REMOVE}; every epsilon means this unless it says otherwise"),
        ("neighbouring relation", REPLACE_ONE, value),
        ("sampling", f"charges have the plan's {'noise' if _matches(case) else 'rate, steps'} and number", wrong),
        ("composition inside the study", "method", _METHOD),
    ]
    for group in case.study.groups:
        line = rho(found.charged[group.group])
        none = "none: the noisy sums are over random samples, whose gain no rho can hold"
        rows += [
            ("guarantee", f"charged, group {group.group}", f"{group.recomputed}{but}"),
            ("guarantee", f"may be charged, group {group.group}", f"{group.claimed}{but}"),
            (_ZCDP, f"rho of what was charged, group {group.group}", none if line is None else f"{line:.4g}"),
        ]
    for k, epsilon in by_partners(found):
        value = f"epsilon {epsilon:.3g} at delta {found.delta:g}, worst mixture of groups"
        rows.append(("several partners", f"customer of {k} partner{'s' if k > 1 else ''}", value))
    shown = worst_profile(found)
    epsilons = "; ".join(f"{value:.3g} at delta {delta:g}" for delta, value in shown.epsilons)
    rows.append(("privacy profile", "epsilon at several deltas, worse group, this study's charges", epsilons))
    for rate, true in shown.found:
        rows.append(("privacy profile", f"greatest true positive rate at false positive rate {rate:g}", f"{true:.3g}"))
    rows += [("privacy profile", f"in words, {n}", text) for n, text in enumerate(words(shown), start=1)]
    return [Fact(*row, RECOMPUTED) for row in rows]


def _budgets(case: _Case) -> list[Fact]:
    """What is used of the budgets that the study counts in."""
    topic, rows = "composition across studies", []
    basis, but = standing(case.verdict, ("budgets",), good=RECOMPUTED, bad=DECLARED)
    for budget in case.verdict.budgets:
        if budget.span in ("life", f"purpose/{case.study.purpose}") or budget.span.startswith("year/"):
            order = ORDERS[Filter(budget.epsilon, budget.delta).index]
            of = f"epsilon {budget.epsilon:g} at delta {budget.delta:g} (order {order:g})"
            value = f"{100 * budget.share:.3g} % used of {of}; epsilon so far {budget.spent:.4g}{but}"
            rows.append(Fact(topic, f"{budget.name}, group {budget.group}", value, basis))
    return rows or [Fact(topic, "budgets", "cannot be told: the ledger holds no policy", DECLARED)]


def _at_rest(case: _Case) -> list[Fact]:
    """What the ledger tells of how the data lie; that they do, no file can show."""
    topic, rows = "encryption at rest", at_rest_facts(case.verdict.at_rest)
    if not rows:
        return [Fact(topic, "what the ledger tells", NOTHING, DECLARED)]
    (name, how), *said = rows
    return [Fact(topic, name, how, DECLARED), *(case.checked(topic, *row, "vault") for row in said)]


def _public(case: _Case) -> list[Fact]:
    """What somebody declared."""
    plan, topic = case.plan, "public inputs"
    rows = [("software", "version that made the bundle", case.verdict.software)]
    if plan is None:
        return [Fact(*row, DECLARED) for row in rows]
    if plan.matches and plan.matching is not None:
        return [Fact(*row, DECLARED) for row in (*rows, *public_match(plan, plan.matching))]
    sizes = ", ".join(f"{partner.name} {partner.customers}" for partner in plan.partners)
    columns = ", ".join(f"{column.name} ({column.kind}, {column.sensitivity})" for column in plan.contract.columns)
    most = max(partner.customers for partner in plan.partners)
    rows += [
        (topic, "training customers, order of magnitude", sizes),
        (
            topic,
            "bounds, bins and vocabularies",
            f"written in the plan's contract before any table was read: {columns}",
        ),
        (topic, "least training customers", f"{plan.cohort.minimum_customers}; who has fewer does not say so"),
        (
            "guarantee",
            "delta beside the largest partner",
            f"{plan.privacy.delta:g}, and one in {most} is {1 / most:.2g}",
        ),
        (
            "tuning",
            "how settings were chosen",
            f"{plan.tuning.configurations} tried on: {plan.tuning.data}; not covered",
        ),
    ]
    return [Fact(*row, DECLARED) for row in rows]
