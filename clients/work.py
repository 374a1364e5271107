"""What all work on data begins with: the plan as it was agreed, the charge, and rows that are opened and checked."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coterie.clients import training
from coterie.clients.agreed import Agreed, agreed_plan
from coterie.clients.charging import Charging
from coterie.clients.consent import Standing
from coterie.clients.consents import consented
from coterie.clients.groups import Among
from coterie.clients.history import note_policy
from coterie.clients.identifierrows import IdentifierList, open_identifiers
from coterie.clients.interactions import OpenedHistories, attributes_of, catalogue_of, open_histories
from coterie.clients.keeping import keeping_of
from coterie.clients.keysources import Sources
from coterie.clients.matched import multiplicities
from coterie.clients.opening import Opened, open_table
from coterie.clients.refusals import Notes, TaskRefused, unforeseen
from coterie.clients.vault import CONSENTS, CUSTOMERS, IDENTIFIERS, INTERACTIONS, Vault
from coterie.clients.who import Shared, Who
from coterie.clients.workspace import Workspace
from coterie.privacy.charges import Charge
from coterie.privacy.errors import ContractFault, CoterieError, Fault, FileFault
from coterie.privacy.events import Event
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan
from coterie.privacy.policy import Policy
from coterie.privacy.randomness import RandomSource, Stream

__all__ = ["Work"]

T = TypeVar("T")


class Work:
    """One partner's workspace while a question is answered.

    Args:
        workspace: Where it keeps everything.
        ledger: Its open ledger.
        random: Where its secret randomness comes from.
        sources: Returns where the vault's keys come from.
    """

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        random: RandomSource,
        sources: Sources = Workspace.key_source,
    ) -> None:
        self.workspace, self.ledger, self.random = workspace, ledger, random
        self.notes = Notes(workspace.root / "reports")
        self.charging = Charging(ledger, workspace.root / "outbox", self.notes)
        self.name = workspace.name
        self._rules: tuple[Policy, str] | None = None
        self._sources = sources
        self._vault: Vault | None = None

    @property
    def vault(self) -> Vault:
        """The sealed data sets.

        Raises:
            KeyFault: The key source is not there.
            FileFault: The vault is missing, or open to others.
        """
        if self._vault is None:
            self._vault = Vault(self.workspace, self.ledger, self._sources(self.workspace))
        return self._vault

    def policy(self) -> tuple[Policy, str]:
        """Return the partner's rules and their digest, read once for this question.

        Raises:
            FileFault: There is no policy, or it breaks its schema.
        """
        if self._rules is None:
            self._rules = note_policy(self.ledger, self.workspace.policy)
        return self._rules

    def standing(self) -> Standing:
        """Return what the partner brings to a decision."""
        return Standing.of(self.workspace, self.ledger)

    def agreed(self, plan: str) -> Agreed:
        """Find what a task for the plan with this digest rests on.

        Raises:
            TaskRefused: It was never consented to, or is not permitted any more.
        """
        try:
            policy, _ = self.policy()
        except FileFault as error:
            raise TaskRefused("no-consent", *error.faults) from None
        stored = self.workspace.plan(plan)
        return agreed_plan(plan, stored, policy=policy, ledger=self.ledger, standing=self.standing(), notes=self.notes)

    def charge(self, agreed: Agreed, step: str, attempt: int, what: tuple[str, Event]) -> Charge:
        """Return what a release costs.

        Args:
            agreed: The plan.
            step: Which release of it.
            attempt: 1, or more after a lost one.
            what: Customer group and event.
        """
        group, event = what
        plan, segments = agreed.plan, agreed.plan.cohort.segments or ()
        return Charge(plan.digest(), plan.purpose, step, attempt, group, event, self.random.name, segments)

    def open(self, agreed: Agreed, charge: Charge, rows: Callable[[str], Stream] | None = None) -> Opened:
        """Open the table, checked against the contract and the policy's cohort.

        Args:
            agreed: The plan.
            charge: What the work is for.
            rows: Returns, for the digest of the sealed table, the stream that chooses rows of customers that have too
                many; None for a stream of its own.

        Raises:
            TaskRefused: "unavailable", whatever is wrong with it.
        """
        plan, group_key = agreed.plan, self.workspace.group_key

        def opening() -> Opened:
            sealed = self.vault.table(CUSTOMERS)
            stream = rows(sealed.digest) if rows else self.random.stream(f"{self.name}/rows/{charge.key}")
            who = self._who(agreed)
            opened = open_table(sealed, plan.contract, group_key=group_key, stream=stream, who=who)
            # The same for training and measuring: two different answers together would tell the table's size.
            training.check_cohort(opened, agreed.policy.minimum_customers)
            return opened

        return self.local(opening, plan)

    def open_histories(self, agreed: Agreed) -> OpenedHistories:
        """Open the table of interactions, checked against the contract, the catalogue and the policy's cohort.

        Raises:
            TaskRefused: "unavailable", whatever is wrong with it.
        """
        plan, workspace = agreed.plan, self.workspace

        def opening() -> OpenedHistories:
            sealed = self.vault.table(INTERACTIONS)
            catalogue = catalogue_of(workspace.catalogue(plan.catalogue.digest if plan.catalogue else ""), plan)
            group_key, who = workspace.group_key, self._who(agreed)
            opened = open_histories(sealed, plan.contract, catalogue, group_key=group_key, who=who)
            if len(opened.training) < agreed.policy.minimum_customers:
                rule = f"has fewer training customers than the policy's {agreed.policy.minimum_customers}"
                raise ContractFault(Fault("the table", rule, "take part when there are more"))
            return opened

        return self.local(opening, plan)

    def attributes(self, agreed: Agreed) -> NDArray[np.float32] | None:
        """Return the encoded public attributes of the plan's items, (items, attributes); None where it has none.

        Raises:
            TaskRefused: "unavailable", where the catalogue is not the plan's.
        """
        plan = agreed.plan
        if plan.catalogue is None or not plan.catalogue.attributes:
            return None
        path = self.workspace.catalogue(plan.catalogue.digest)
        return self.local(lambda: attributes_of(path, plan), plan)

    def _who(self, agreed: Agreed) -> Who:
        """Return whose rows a study may read: of its segments, with consent to its purpose, and matched as it asks."""
        plan, policy = agreed.plan, agreed.policy
        segments = plan.cohort.segments
        among = Among(policy.segments, segments) if policy.segments and segments else None
        told = (
            consented(self.vault.table(CONSENTS), plan.purpose, self.ledger.now)
            if policy.consents(plan.purpose)
            else None
        )
        return Who(among, told, self._shared(plan))

    def _shared(self, plan: Plan) -> Shared | None:
        """Return the customers whom the plan's match found at enough partners, and not at too many."""
        if plan.cohort.partners == 1:
            return None
        customers, known = multiplicities(self.vault, plan.digest())
        return Shared(customers.filter(pa.array((known >= plan.cohort.partners) & (known <= plan.parts))))

    def open_identifiers(self, agreed: Agreed) -> IdentifierList:
        """Open the customers' identifiers of the kind that a plan matches by, held to the policy's cohort.

        Raises:
            TaskRefused: "unavailable", whatever is wrong with them; they are not matched again until sealed anew.
        """
        plan, matching = agreed.plan, agreed.plan.matching

        def opening() -> IdentifierList:
            if matching is None:
                raise ContractFault(Fault("the plan", "matches nothing", "give a plan with [matching]"))
            sealed, kind = self.vault.table(IDENTIFIERS), matching.identifier
            opened = open_identifiers(sealed, kind, group_key=self.workspace.group_key, who=self._listed(agreed))
            least = max(agreed.policy.minimum_customers, matching.least)
            if not least <= opened.count <= matching.most:
                rule = f"holds {kind} identifiers of fewer customers than {least}, or of more than {matching.most}"
                raise ContractFault(Fault(sealed.place, rule, "take part when they are within"))
            return opened

        return self.local(opening, plan)

    def _listed(self, agreed: Agreed) -> Who:
        """Return whose identifiers may be matched: as `_who`, before a match says who is shared."""
        return self._who(replace(agreed, plan=replace(agreed.plan, cohort=replace(agreed.plan.cohort, partners=1))))

    def keep(self, charge: Charge, counts: Mapping[str, int]) -> str:
        """Seal the exact counts of what was opened for a charge, and return the ledger's commitment to them.

        Raises:
            FileFault: They cannot be written.
        """
        about = {"plan": charge.plan, "purpose": charge.purpose, "step": charge.step, "attempt": str(charge.attempt)}
        return keeping_of(self.workspace).keep(about, counts)

    def local(self, work: Callable[[], T], plan: Plan) -> T:
        """Do what depends on rows before anything is charged.

        Whatever goes wrong, its reason stays here and one uniform word leaves, once: the contract's approval is taken
        back, so that a row of plans cannot ask a row of questions. A key that cannot be had says nothing of rows: it
        leaves the approval as it is, and the same question is answered once the key is there again.

        Raises:
            TaskRefused: "unavailable".
        """
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - a second word for other failures would be a second answer
            faults = error.faults if isinstance(error, CoterieError) else (unforeseen(error),)
            if not isinstance(error, KeyFault):
                self.workspace.withdraw(plan.contract)
                if plan.matching is not None:
                    self.workspace.withdraw_identifiers()
            self.ledger.record("refusal", {"release": "", "plan": plan.digest(), "codes": ["unavailable"]})
            self.notes.write("refusals.log", faults)
            raise TaskRefused("unavailable", *faults) from None
