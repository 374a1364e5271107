"""Who takes part: nodes bound to partners by their signed consents, never by being online."""

from collections.abc import Mapping
from dataclasses import dataclass

from coterie.clients.task import consent_message
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.identity import verify
from coterie.privacy.plan import Plan
from coterie.privacy.release import ConsentGiven

__all__ = ["Cohort", "admit"]


@dataclass(frozen=True)
class Cohort:
    """The partners that consented.

    Args:
        nodes: Flower node by partner.
    """

    nodes: Mapping[str, int]

    def __len__(self) -> int:
        """Return how many partners take part."""
        return len(self.nodes)

    def partner_of(self, node: int) -> str:
        """Return the partner of a node."""
        return next(partner for partner, own in self.nodes.items() if own == node)


def admit(plan: Plan, consents: Mapping[int, ConsentGiven]) -> tuple[Cohort, tuple[Fault, ...]]:
    """Bind nodes to partners.

    Args:
        plan: The plan.
        consents: What each node answered.

    Returns:
        The cohort, and a fault for each consent that is not a partner's own: a wrong plan, a name outside the
        roster, a signature by another key, or a second node for one partner.
    """
    nodes: dict[str, int] = {}
    faults: list[Fault] = []
    for node, given in sorted(consents.items()):
        entry = plan.partner(given.partner)
        if given.plan != plan.digest() or entry is None or given.partner in nodes:
            rule = "consented to another plan, outside the roster, or twice"
            faults.append(Fault(f"node {node}", rule, "check which node speaks for which partner"))
            continue
        try:
            verify(entry.key, given.signature, consent_message(given.plan, given.partner))
        except PlanFault as error:
            faults.extend(Fault(f"node {node}", fault.rule, fault.fix) for fault in error.faults)
            continue
        nodes[given.partner] = node
    return Cohort(nodes), tuple(faults)
