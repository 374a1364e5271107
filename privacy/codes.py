"""Every word that a refusal may say."""

__all__ = ["CODES", "PENDING"]

CODES: dict[str, str] = {
    "unavailable": "the partner cannot take part; what depends on its rows is never said",
    "policy-missing": "the partner has no policy",
    "signature": "the plan is not signed by the coordinator that the partner pins",
    "expired": "the plan has expired",
    "roster": "the partner is not in the plan's roster under its own key",
    "purpose": "the purpose is not permitted",
    "customer": "the plan's customer column is not the partner's",
    "label": "the label is not permitted",
    "contract": "the partner has not approved the plan's data contract",
    "catalogue": "the partner does not hold the plan's catalogue of items",
    "column": "a column is not permitted",
    "special-column": "a column of special sensitivity is not permitted",
    "family": "the model family is not permitted",
    "trust": "the plan's trust is not permitted",
    "partners": "the plan names too few partners",
    "peers": "the partner does not pin the key of every other partner of a secure sum",
    "secagg": "a message of a secure sum is not what the protocol has there; nothing is opened",
    "cohort": "the plan's minimum cohort exceeds the partner's own",
    "delta": "the plan's delta exceeds the partner's",
    "study-budget": "the plan asks for more epsilon than a study may have",
    "budget": "the budget does not carry the study or the release",
    "no-consent": "the partner has not consented to this plan",
    "task": "the task is not one that the plan describes",
    "replay": "this step was answered for another model",
    "lost": "this attempt was lost in a crash; its charge stays spent",
    "busy": "the workspace is in use by another process",
    "fault": "the partner's node failed; the reason stays with the partner",
    "segment": "the plan's customer segments are not the partner's",
    "rollback": "the partner's ledger does not extend the one that the coordinator saw",
    "awaiting": "the partner's operator has not approved the plan yet",
    "declined": "the partner's operator declined the plan",
    "consent": "the purpose needs the partner's table of its customers' consents, and there is none",
    "matching": "the partner's policy permits no such match",
    "identifiers": "the partner holds no table of its customers' identifiers of this kind",
    "match": "a message of a match is not what the protocol has there; nothing is matched",
    "quota": "the match asks for more evaluations, or disclosures, than the partner makes in a year",
    "red-line": "the plan crosses a red line of the partner's policy",
}
"""Every word that a refusal may say; each is free of data (PRIVACY rule 15)."""

PENDING = frozenset({"awaiting", "contract", "catalogue", "consent", "identifiers"})
"""Words that the partner's operator takes back by looking at the plan, its contract, its items, its consents and its
customers' identifiers."""
