"""A study as a record for a registry of deployments: who protects whom, how, and at which figures.

The fields follow the public registry's schema (Nanayakkara, Ghazi, Vadhan 2025, arXiv 2509.13509; deployments-registry
of OpenDP): product, flavour, privacy loss, model, accounting, implementation. What only a person can say is named under
`to_be_completed`. The record is plain JSON, and so YAML, and its texts are plain: a site that shows texts as Markdown
escapes them first.
"""

from typing import Any

from coterie.privacy.plain import plain
from coterie.privacy.plan import Plan
from coterie.privacy.review.composition import by_partners, composition, matches_plan, plan_of, replaced
from coterie.privacy.review.divergence import rho
from coterie.privacy.review.facts import facts
from coterie.privacy.review.matchwords import discloses, disclosure_words, trusted_by
from coterie.privacy.review.verdict import GroupSpent, Study, Verdict
from coterie.privacy.statement import not_covered, not_covered_by

__all__ = ["FORMAT", "registry_record"]

FORMAT = "coterie/registry-record/v1"

_MISSING = (
    "registry_authors",
    "deployment.product.data_product_region",
    "deployment.model.data_source_type",
    "deployment.implementation.justification",
)

_MADE_OF = {
    False: "Updates are averaged into a model; metrics are computed from noisy histograms.",
    True: "Opened sums become the steps of a model; metrics are computed from sums of noisy histograms.",
}

_MATCHED = "Numbers of planted items are taken off on average; counts below the plan's least are not printed."


def registry_record(verdict: Verdict, study: Study) -> dict[str, Any]:
    """Return a study's record as plain JSON values.

    Args:
        verdict: What a review found.
        study: One of its studies.
    """
    told = facts(verdict, study)

    def said(*topics: str) -> str:
        """Return all facts of topics, each with what it rests on."""
        return "\n".join(f"- {f.name}: {f.value} ({f.basis})" for f in told if f.topic in topics)

    plan = plan_of(verdict, study)
    matched = plan is not None and plan.matches
    return {
        "format": FORMAT,
        "url_slug": f"coterie-{plain(study.plan).removeprefix('sha256:')[:16]}",
        "status": "Draft",
        "tier": 3 if plan is not None else 1,
        "deployment": {
            "product": _product(verdict, study, plan),
            "dp_flavor": {
                "name": "None: a disclosure of exact results" if discloses(plan) else "Approximate DP",
                "data_domain": f"Customers of {plain(verdict.partner)}:\n{said('unit', 'contribution bound')}",
                "unprotected_quantities": _unprotected(verdict, study, plan),
            },
            "privacy_loss": _loss(verdict, study, said("neighbouring relation", "privacy profile", "several partners")),
            "model": {
                "model_name": "Federated",
                "model_name_description": trusted_by(plan, study.trust),
                "actors": said("trust"),
                "release_type": "Many releases",
                "release_type_description": said("composition across studies", "retention"),
                "access_type": "Non-interactive",
            },
            "accounting": {
                "post_processing": _MATCHED if matched else _MADE_OF[study.openings is not None],
                "composition": said("composition inside the study", "composition across studies"),
            },
            "implementation": {
                "pre_processing_eda_hyperparameter_tuning": said("tuning", "public inputs"),
                "mechanisms": said("guarantee", "sampling", "randomness", "floating point", "software"),
            },
        },
        "evidence": _evidence(verdict, study) | {"encryption_at_rest": said("encryption at rest")},
        "to_be_completed": list(_MISSING),
    }


def _unprotected(verdict: Verdict, study: Study, plan: Plan | None) -> str:
    """Return what no epsilon covers: Disclosures first."""
    told = [plain(disclosure_words(one)) for one in verdict.disclosures if one.plan == study.plan]
    texts = (*told, *(not_covered(study.trust) if plan is None else not_covered_by(plan)))
    return "\n".join(f"- {one}" for one in texts)


def _product(verdict: Verdict, study: Study, plan: Plan | None) -> dict[str, Any]:
    received = [model.at for model in verdict.models if model.plan == study.plan]
    return {
        "name": plain(study.name),
        "data_curators": [plain(name) for name in study.partners],
        "description": _described(plan),
        "intended_use": plain(study.purpose),
        "data_product_type": "Overlap of customers" if plan is not None and plan.matches else "Machine learning model",
        "publication_date": plain(received[0][:10]) if received else None,
    }


def _described(plan: Plan | None) -> str:
    if plan is None:
        return "A model"
    if plan.matches and plan.matching is not None:
        return f"A match of customers by {plan.matching.identifier}, outcome {plan.matching.outcome}"
    return f"A {plan.task} model, {plan.model.family}"


def _loss(verdict: Verdict, study: Study, more: str) -> dict[str, Any]:
    """Return the figures: of what was charged and of what may be; the first accountant's, and the second's bounds."""
    found = composition(verdict, study)
    told = {
        "privacy_unit": plain(study.unit) or None,
        "privacy_unit_description": more,
        "privacy_parameters_planned": {"epsilon": study.epsilon, "delta": study.delta},
        "contradictions": list(matches_plan(found)) if found is not None else [],
    }
    if found is None or found.void:
        none = {"privacy_parameters": {"epsilon": None, "delta": study.delta}, "groups": []}
        return told | none | {"replace_one_epsilon": None, "by_partners": []}
    groups = [_group(group, rho(found.charged[group.group])) for group in study.groups]
    return told | {
        "privacy_parameters": {"epsilon": max(group["epsilon_charged"] for group in groups), "delta": study.delta},
        "groups": groups,
        "replace_one_epsilon": replaced(found).first,
        "by_partners": [{"partners": k, "epsilon": epsilon} for k, epsilon in by_partners(found)],
    }


def _group(group: GroupSpent, line: float | None) -> dict[str, Any]:
    charged, allowed = group.recomputed, group.claimed
    return {
        "group": group.group,
        "epsilon_charged": max(charged.first, charged.low) if charged is not None else None,
        "epsilon_charged_bounds": [charged.low, charged.high] if charged is not None else None,
        "epsilon_allowed": max(allowed.first, allowed.low) if allowed is not None else None,
        "rho_charged": line,
        "charges": group.charges,
        "allowed": group.declared,
    }


def _evidence(verdict: Verdict, study: Study) -> dict[str, Any]:
    return {
        "status": verdict.status,
        "verdict": plain(verdict.line),
        "partner_key": plain(verdict.key),
        "plan": plain(study.plan),
        "record": plain(verdict.records.get(study.plan, "")) or None,
        "ledger": {"entries": verdict.size, "root": plain(verdict.root)},
        "cosigned": len(verdict.cosigned),
        "checks": {plain(check.name): check.status for check in verdict.checks},
        "software_declared": plain(verdict.software),
    }
