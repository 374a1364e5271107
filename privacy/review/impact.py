"""A data-protection impact assessment, as a draft: what the ledger can tell is filled in, the rest is left to people.

The parts are those of article 35(7)(a)-(d) of the GDPR; beside them stand the three questions of articles 55 and 56 of
the PIPL. Whatever comes from the bundle is escaped: it can make neither markup nor links.
"""

import re
from collections.abc import Sequence

from coterie.privacy.overlaps import disclosed_words
from coterie.privacy.plain import plain
from coterie.privacy.plan import Plan
from coterie.privacy.release import CODES
from coterie.privacy.review.composition import by_partners, composition, plan_of
from coterie.privacy.review.explain import Section, explain
from coterie.privacy.review.matchwords import trusted_by
from coterie.privacy.review.trust import secure_words
from coterie.privacy.review.verdict import Study, Verdict

__all__ = ["impact_draft", "markdown"]

_HARMLESS = re.compile(r"sha256:[0-9a-f]{64}|\d{4}-\d\d-\d\d")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# What makes markup anywhere, a list or heading at the start, or a link out of an address.
_MARKUP = re.compile(r"[\\`*_{}\[\]()#|~@$^]|[&<>]|:(?! |$)|(?<=www)\.|^[-+=]|(?<=^\d)\.|(?<=^\d\d)\.", re.IGNORECASE)


def markdown(text: str) -> str:
    """Return a text that Markdown shows as it is: one line, no markup, no HTML, no link.

    Args:
        text: Somebody else's words.
    """
    shown = plain(text).strip()
    if _HARMLESS.fullmatch(shown):
        return shown
    return _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), shown)


def impact_draft(verdict: Verdict) -> str:
    """Return the draft as Markdown.

    Args:
        verdict: What a review found.
    """
    parts = [
        _head(verdict),
        "## 1. Description of the processing (GDPR art. 35(7)(a))",
        _operations(verdict),
        _todo("the legitimate interest pursued, where it is the legal basis"),
        "## 2. Necessity and proportionality (GDPR art. 35(7)(b); PIPL art. 56, first question: lawful, necessary)",
        _necessity(verdict),
        "## 3. Risks to the rights of customers (GDPR art. 35(7)(c); PIPL art. 56, second question: influence, risk)",
        _risks(verdict),
        "## 4. Measures (GDPR art. 35(7)(d); PIPL art. 56, third question: lawful, effective, fitting the risk)",
        _measures(verdict),
        "## 5. Consultation and decision",
        _todo("the advice of the data protection officer (GDPR art. 35(2))"),
        _todo("the views of customers or their representatives, or why they were not asked (GDPR art. 35(9))"),
        _todo("whether the supervisory authority is to be consulted (GDPR art. 36)"),
        _todo("the decision, who took it, and when it is to be reviewed (GDPR art. 35(11))"),
        "## 6. Keeping",
        "Keep this assessment and the record of the processing for at least three years (PIPL art. 56). Keep the "
        "bundle that it was drawn from beside it: with the bundle it can be checked, without it it is only words.",
    ]
    return "\n\n".join(parts) + "\n"


def _todo(what: str) -> str:
    return f"TO BE COMPLETED BY THE CONTROLLER: {what}."


def _list(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _told(sections: Sequence[Section], *titles: str) -> str:
    """Return paragraphs of the explanation, escaped; a title may be a beginning."""
    return "\n\n".join(
        f"### {markdown(one.title)}\n\n{_list([markdown(text) for text in one.paragraphs])}"
        for one in sections
        if one.title.startswith(titles)
    )


def _head(verdict: Verdict) -> str:
    rows = [
        ("Controller", f"{markdown(verdict.partner)}, by the bundle's word"),
        ("Key", markdown(verdict.key)),
        ("Bundle made", f"{markdown(verdict.made[:10])}, by the partner's clock"),
        ("Entries of the ledger", str(verdict.size)),
        ("Root of the ledger", markdown(verdict.root)),
        ("Result of the review", markdown(verdict.line)),
    ]
    table = "\n".join(["| what | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    warning = (
        []
        if verdict.status == "holds"
        else ["**The bundle did not pass its review. Do not rely on what follows before that is explained.**"]
    )
    return "\n\n".join(
        [
            "# Data protection impact assessment: draft",
            "Drawn from a partner's privacy ledger. It is no legal advice; what a ledger cannot know is marked.",
            *warning,
            table,
        ]
    )


def _operations(verdict: Verdict) -> str:
    plans = [plan_of(verdict, study) for study in verdict.studies]
    matches = [plan for plan in plans if plan is not None and plan.matching is not None]
    trains = not plans or any(plan is None or not plan.matches for plan in plans)
    lines = [
        *([_TRAINED] if trains else []),
        *([_MATCHED] if matches else []),
        *(_study(study, plan_of(verdict, study)) for study in verdict.studies),
    ]
    return "\n\n".join([*lines, _todo("recipients of the models, storage periods of rows and models, and processors")])


_TRAINED = (
    "Partner companies train a model together. Rows stay at each partner; what leaves it are model updates and "
    "histograms of scores, both with noise, both paid for from a privacy budget."
)
_MATCHED = (
    "Partner companies find out which customers they share, or how many. Identifiers stay at each partner; what leaves "
    "it are blinded lists, sealed to the other partners."
)


def _study(study: Study, plan: Plan | None) -> str:
    rows = [
        f"purpose: {markdown(study.purpose)}",
        f"consent of the partner: {markdown(study.at[:10])}; may be worked on until {markdown(study.expires)}",
        f"partners: {', '.join(markdown(name) for name in study.partners) or 'cannot be told'}",
        "customers concerned: " + (", ".join(markdown(one) for one in study.segments) or "all of the partner's"),
    ]
    if plan is None:
        rows.append("data: cannot be told, the plan is not in the bundle or was not believed")
    elif plan.matches and plan.matching is not None:
        rows += [
            f"data read: the customers' identifiers of the kind {plan.matching.identifier}, and no other column",
            f"means: a match of customers among all partners, outcome {plan.matching.outcome}",
            *(markdown(text) for text in disclosed_words(plan)),
            f"who is trusted: {markdown(trusted_by(plan, study.trust))}",
        ]
    else:
        columns = [f"{markdown(column.name)} ({column.sensitivity})" for column in plan.contract.columns]
        special = [markdown(column.name) for column in plan.contract.columns if column.sensitivity == "special"]
        sizes = [f"{markdown(one.name)} about {one.customers}" for one in plan.partners]
        rows += [
            f"data read: {', '.join(columns)}",
            f"what is predicted: {markdown(plan.contract.label)}",
            f"special categories, as the plan declares them: {', '.join(special) or 'none'}",
            f"training customers, as partners declared them: {', '.join(sizes)}",
            f"means: a {plan.model.family} model, {plan.training.rounds} rounds",
            *(markdown(text) for text in disclosed_words(plan)),
            f"who is trusted: {markdown(trusted_by(plan, study.trust))}",
        ]
        rows += [markdown(text) for text in secure_words(plan, study.openings)] if study.openings is not None else []
    return f"### Study: {markdown(study.name)}\n\n{_list(rows)}"


def _necessity(verdict: Verdict) -> str:
    refused: dict[str, int] = {}
    for refusal in verdict.refusals:
        for code in refusal.codes:
            refused[code] = refused.get(code, 0) + 1
    why = [f"{CODES.get(code, 'unknown reason')}: {count}" for code, count in sorted(refused.items())]
    policy = verdict.policy or {}
    permitted = [
        f"{name} that the partner's rules permit: {', '.join(markdown(str(one)) for one in values)}"
        for name in ("purposes", "columns", "special", "families")
        if isinstance(values := policy.get(name), list) and values
    ]
    return "\n\n".join(
        [
            _list([*permitted, "rows, identifiers and keys: do not leave the partner"]),
            "What the partner refused: " + ("\n\n" + _list(why) if why else "nothing, as far as the ledger tells."),
            _todo("the legal basis (GDPR art. 6; art. 9 where a column is of a special category; PIPL art. 13)"),
            _todo("why the purpose cannot be reached with less data, and how customers are informed and may object"),
            _todo("the assessment of automated decisions, entrusted processing and transfers abroad (PIPL art. 55)"),
        ]
    )


def _risks(verdict: Verdict) -> str:
    told = explain(verdict)
    lines = [
        _told(told, "Disclosures", "Matches", "What was spent", "What is used", "A customer of several"),
        _table(verdict),
    ]
    lines += [_told(told, "What is not covered", "What no file")]
    lines.append(
        _todo("how likely and how grave harm to a customer is, such as unfair treatment by the model's scores")
    )
    return "\n\n".join(line for line in lines if line)


def _table(verdict: Verdict) -> str:
    rows = []
    for study in verdict.studies:
        found = composition(verdict, study)
        if found is not None and not found.void:
            rows += [f"| {markdown(study.name)} | {k} | {epsilon:.2f} |" for k, epsilon in by_partners(found)]
    if not rows:
        return ""
    return "\n".join(
        ["| study | partners that have the person as a customer | epsilon at most |", "|---|---|---|", *rows]
    )


def _measures(verdict: Verdict) -> str:
    names = {"holds": "yes", "fails": "NO", "open": "not decided"}
    checks = [f"| {check.asks} | {names[check.status]} |" for check in verdict.checks]
    budgets = [
        f"{markdown(one.name)}, group {markdown(one.group)}: epsilon {one.epsilon:g} at delta {one.delta:g}, "
        f"{100 * one.share:.1f} % used"
        for one in verdict.budgets
    ]
    return "\n\n".join(
        [
            "Noise, or with secure aggregation a share of it, is added at the partner before anything leaves; each "
            "release is paid for first, in an append-only ledger; the partner's own rules are above every request. "
            f"They are measures of the software that the bundle names ({markdown(verdict.software)}); that it ran "
            "unchanged is the partner's word.",
            "What a review of the ledger confirms:",
            "\n".join(["| question | answer |", "|---|---|", *checks]),
            "Budgets in force:",
            _list(budgets or ["none can be told: the ledger holds no policy"]),
            _told(explain(verdict), "The data"),
            f"Cosigned states of the ledger: {len(verdict.cosigned)}. Models received: {len(verdict.models)}.",
            _todo("security of the partner's own systems, access rights, training, and handling of incidents"),
        ]
    )
