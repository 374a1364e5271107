"""A verdict in plain words, for a reader who decides and does not compute.

Numbers come with what they mean; formulae stay away. What the bundle says, such as names and purposes, stands in
quotation marks and is plain text: whoever prints it escapes it for where it is printed.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coterie.privacy.plain import plain
from coterie.privacy.plan import MATCHING, Plan
from coterie.privacy.release import CODES
from coterie.privacy.review.composition import (
    Composition,
    by_partners,
    composition,
    matches_plan,
    plan_of,
    replaced,
    worst_profile,
)
from coterie.privacy.review.holding import at_rest_words
from coterie.privacy.review.matchwords import COUNTED, discloses, match_sections, matched_words
from coterie.privacy.review.profile import words
from coterie.privacy.review.trust import LOCAL, secure_words
from coterie.privacy.review.verdict import Budget, Study, Verdict
from coterie.privacy.review.verify import CANNOT_PROVE
from coterie.privacy.statement import not_covered, not_covered_by

__all__ = ["Section", "explain", "quoted"]

_MOST = 20  # studies, refusals or models that are told one by one

_ALONE = (
    "What is hidden is whether that customer was in the data at all, from everybody who sees everything that left "
    "the partner: the coordinator, all other partners, and whoever gets the models, even if they work together "
    "and know every other customer's data.",
    "Nobody outside the partner needs to be trusted for this: the partner adds all its noise itself, before "
    "anything leaves. The partner and its own administrators see their customers' data, as before.",
)


@dataclass(frozen=True)
class Section:
    """One part of the explanation.

    Args:
        title: What it is about.
        paragraphs: Plain text, none of it empty.
    """

    title: str
    paragraphs: tuple[str, ...]


def quoted(text: str) -> str:
    """Return a text of the bundle in quotation marks, shortened, without what is not printable."""
    return f"“{plain(text[:120])}{'…' if len(text) > 120 else ''}”"


def explain(verdict: Verdict) -> tuple[Section, ...]:
    """Return the verdict in plain words.

    Args:
        verdict: What a review found.
    """
    told = verdict.studies[:_MOST]
    found = {study.plan: composition(verdict, study) for study in told}
    plans = {study.plan: plan_of(verdict, study) for study in told}
    parts: list[tuple[str, Iterable[str]]] = [
        ("The verdict", _verdict(verdict)),
        ("Whose data, and for what", _purposes(verdict)),
        ("Who is protected against whom", _adversary(verdict)),
        ("The data", _data(verdict)),
        *match_sections(verdict),
        *(
            (
                f"What was spent: {quoted(study.name)}",
                _spent(study, found[study.plan], plan=plans[study.plan], failed=verdict.status == "fails"),
            )
            for study in told
        ),
        ("What is used of the budgets, and what is left", _left(verdict)),
        ("A customer of several partners", _several(told, found)),
        ("Models that were received", _models(verdict)),
        ("What was refused", _refusals(verdict)),
        ("What is assumed", _assumed(verdict)),
        ("What is not covered", _uncovered(verdict)),
        ("What no file can prove", CANNOT_PROVE),
    ]
    return tuple(Section(plain(title), tuple(plain(text) for text in texts)) for title, texts in parts)


def _verdict(verdict: Verdict) -> list[str]:
    meaning = {
        "holds": "Everything in this file that can be checked was checked, and nothing contradicts what it claims.",
        "fails": "Something in this file is not what it claims to be. Do not rely on it before this is explained.",
        "open": "Nothing contradicts the claims, but something could not be decided. The partner can supply it.",
    }[verdict.status]
    bad = [check for check in verdict.checks if check.status != "holds"]
    answers = {"fails": "no", "open": "not decided"}
    lines = [
        f"{check.asks} Answer: {answers[check.status]}. {'; '.join(str(one) for one in check.findings[:3])}"
        + (f"; and {len(check.findings) - 3 + check.more} more." if len(check.findings) + check.more > 3 else ".")
        for check in bad
    ]
    asked = f"{len(verdict.checks)} questions were asked; {len(verdict.checks) - len(bad)} were answered with yes."
    return [verdict.line + ".", meaning, asked, *lines]


def _purposes(verdict: Verdict) -> list[str]:
    count = _number(len(verdict.studies), "study", "studies")
    purposes = ", ".join(quoted(purpose) for purpose in dict.fromkeys(study.purpose for study in verdict.studies))
    lines = [
        f"This is the ledger of the partner {quoted(verdict.partner)}, exported on {verdict.made[:10]} by its clock. "
        f"Its public key is {verdict.key}: compare it with the partner on another way.",
        f"The partner consented to {count}" + (f", for: {purposes}." if purposes else "."),
    ]
    for study in verdict.studies[:_MOST]:
        part = f", of its customers in {', '.join(quoted(one) for one in study.segments)}" if study.segments else ""
        others = ", ".join(quoted(name) for name in study.partners) or "partners that cannot be told"
        lines.append(
            f"{quoted(study.name)}, for {quoted(study.purpose)}: consent of {study.at[:10]}, until {study.expires}, "
            f"among {others}; the data are those of this partner's customers{part}."
        )
    return lines


def _adversary(verdict: Verdict) -> list[str]:
    if not verdict.studies:
        return ["No study was consented to, so nothing about a customer was paid for."]
    unit = "The unit of protection is one customer of one partner: all rows of that customer at this partner, together."
    plans = [(study, plan_of(verdict, study)) for study in verdict.studies]
    matches = any(plan is not None and plan.matches and not discloses(plan) for _, plan in plans)
    local = any(study.trust == LOCAL and not (plan is not None and plan.matches) for study, plan in plans)
    summed = [(study, plan) for study in verdict.studies if study.openings and (plan := plan_of(verdict, study))]
    told = sum(study.trust == LOCAL for study in verdict.studies) + len(summed)
    lines = [unit]
    if local and summed:
        lines.append("For studies without secure aggregation the next two paragraphs hold.")
    if local:
        lines += _ALONE
    if matches:
        lines.append(COUNTED)
    for study, plan in summed[:_MOST]:
        lines.append(f"Study {quoted(study.name)}:")
        lines += secure_words(plan, study.openings) if study.openings else ()
    lines += _rest(len(summed))
    if told < len(verdict.studies):
        lines.append("For some studies it could not be told against whom protection holds.")
    return lines


def _data(verdict: Verdict) -> list[str]:
    doubts = {
        "fails": "What the ledger says here contradicts itself: see the verdict. It is told as it stands there.",
        "open": "Not all of this could be decided: see the verdict.",
    }
    status = next((check.status for check in verdict.checks if check.name == "vault"), "")
    return [*([doubts[status]] if status in doubts else []), *at_rest_words(verdict.at_rest)]


def _uncovered(verdict: Verdict) -> list[str]:
    plans = ((study, plan_of(verdict, study)) for study in verdict.studies)
    told = (not_covered_by(plan) if plan is not None else not_covered(study.trust) for study, plan in plans)
    texts = (text for one in told for text in one)
    return list(dict.fromkeys(texts)) or list(not_covered(LOCAL))


def _spent(study: Study, found: Composition | None, *, plan: Plan | None, failed: bool) -> list[str]:
    lines = matched_words(study, plan) if plan is not None and plan.matches else _paid(study)
    if failed:
        lines.append("This file failed a check: the figures here are what follows from it as it stands, no more.")
    if discloses(plan):
        return lines
    if found is None:
        return [*lines, "How much privacy this spent was not recomputed: the plan, the accountants or a charge lack."]
    lines += [f"What is charged is not what the plan does: {wrong}." for wrong in matches_plan(found)]
    if found.void:
        return [*lines, "There is no guarantee: some noise was not drawn from secret randomness, so it can be removed."]
    return [*lines, *_figures(study, found)]


def _paid(study: Study) -> list[str]:
    charges, allowed = (sum(getattr(group, name) for group in study.groups) for name in ("charges", "declared"))
    return [
        f"{_number(charges, 'release was', 'releases were')} paid for, of {allowed} that the partner consented to: "
        f"{study.settled} left the partner, {study.lost} were lost in a crash, {study.unsettled} were open at the end. "
        "Lost and open ones count in full."
    ]


def _figures(study: Study, found: Composition) -> list[str]:
    worst = max(max(one.first, one.low) for group in study.groups if (one := group.recomputed) is not None)
    return [
        f"The customer who paid most spent epsilon {worst:.2f} of {study.epsilon or 0:g} that the plan may spend, "
        "recomputed by two accountants. Smaller is more private. It multiplies the odds of any guess about a customer "
        f"by {math.exp(min(worst, 700)):,.1f} at most, but for a chance of 1 in {1 / found.delta:,.0f}.",
        "What this means, for everything that left the partner in this study alone:",
        *words(worst_profile(found)),
        "If it is to be hidden not whether a customer was there but which one of two, the figure is "
        f"{replaced(found).first:.2f} instead.",
    ]


def _left(verdict: Verdict) -> list[str]:
    if not verdict.budgets:
        return ["No budget can be told: the ledger holds no policy."]
    return [
        "The partner's own rules set the budgets. Each part of a budget is spent once; what is used never comes back, "
        "but for budgets of a year.",
        *(_budget(budget) for budget in verdict.budgets),
        *(
            ["Disclosures are in none of these budgets, and these promises do not cover them."]
            if verdict.disclosures
            else []
        ),
    ]


def _budget(budget: Budget) -> str:
    who = {"training": "customers whom models are trained on", "holdout": "customers kept apart to measure models"}
    runs = [f"{_number(n, 'more run', 'more runs')} like {quoted(name)} would fit" for name, n in budget.runs]
    return (
        f"{plain(budget.name).capitalize()}, {who.get(budget.group, quoted(budget.group))}: "
        + "; ".join([f"{100 * budget.share:.1f} % is used", *runs])
        + f". Over all studies that count in it, however each was chosen after the results of those before, this "
        f"promises epsilon {budget.spent:.1f} so far and never more than {budget.epsilon:g}, but for a chance of 1 in "
        f"{1 / budget.delta:,.0f}. This promise is more cautious than the figures by study."
    )


def _several(studies: Sequence[Study], found: dict[str, Composition | None]) -> list[str]:
    lines = [
        "Somebody who is a customer of several partners is protected less: each partner's releases tell something. "
        "Nothing bounds this across partners; the figures below are the worst that the plan allows."
    ]
    for study in studies:
        case = found[study.plan]
        if case is None or case.void:
            lines.append(f"{quoted(study.name)}: no figure can be given.")
            continue
        table = "; ".join(f"{_number(k, 'partner', 'partners')}: epsilon {value:.2f}" for k, value in by_partners(case))
        lines.append(f"{quoted(study.name)}, by how many partners have the person as a customer: {table}.")
    return lines


def _models(verdict: Verdict) -> list[str]:
    names = {study.plan: study.name for study in verdict.studies}
    lines = []
    models = [model for model in verdict.models if verdict.plans.get(model.plan, {}).get("task") != MATCHING]
    for model in models[:_MOST]:
        figures = ", ".join(f"{plain(name)} {value:.3f}" for name, value in model.metrics) or "none"
        lines.append(
            f"On {model.at[:10]} the model of {quoted(names.get(model.plan, 'an unknown study'))}. Its figures, from "
            f"histograms that were paid for, as the coordinator signed them: {figures}. Noise is in them."
        )
    return [*lines, *_rest(len(models))] or ["No model was received."]


def _refusals(verdict: Verdict) -> list[str]:
    lines = []
    for refusal in verdict.refusals[:_MOST]:
        why = "; ".join(CODES.get(code, "a reason that this version does not know") for code in refusal.codes)
        lines.append(f"On {refusal.at[:10]}: {why}.")
    return [*lines, *_rest(len(verdict.refusals))] or ["Nothing was refused, as far as this ledger tells."]


def _rest(count: int) -> list[str]:
    return [f"And {count - _MOST} more."] if count > _MOST else []


def _assumed(verdict: Verdict) -> list[str]:
    sums = any(study.openings is not None for study in verdict.studies)
    trained = [study for study in verdict.studies if verdict.plans.get(study.plan, {}).get("task") != MATCHING]
    floats = (not sums and not verdict.studies) or any(study.openings is None for study in trained)
    return [
        f"That the partner ran {quoted(verdict.software)} unchanged; this is its own word.",
        "That one customer has one identifier, and that rows, sizes and sensitivities were declared truly.",
        "That the noise was kept secret. It is drawn from a generator whose key the operating system makes.",
        *(
            ["That numbers in model updates behave like exact ones; counts in histograms do so exactly."]
            if floats
            else []
        ),
        *(["That other partners added their noise and kept their keys, as their own bundles tell."] if sums else []),
        "That the partner did not change a budget because of what earlier results showed.",
    ]


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
