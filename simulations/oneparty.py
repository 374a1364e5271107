"""A plan as one party would carry it out that has all the data: what federations are held against."""

import dataclasses

from coterie.privacy.plan import Partner, Plan
from coterie.privacy.terms import CUSTOMER

__all__ = ["ALONE", "alone"]

ALONE = "alone"
"""The party's name."""


def alone(plan: Plan, customers: int) -> Plan:
    """Return the plan for one party that has all the data and adds all the noise itself.

    It protects a customer of that one party: nobody is in parts, and nobody is matched. A person whom several parties
    each keep apart so is protected less than the federation protects it, which favours the baseline.

    Args:
        plan: With any number of partners, under any trust.
        customers: Order of magnitude of the party's customers.
    """
    privacy = dataclasses.replace(plan.privacy, trust="local", threshold=1, unit=CUSTOMER, partners_per_person=None)
    cohort = dataclasses.replace(plan.cohort, partners=1)
    roster = (Partner(name=ALONE, customers=customers),)
    return dataclasses.replace(plan, partners=roster, privacy=privacy, cohort=cohort, matching=None)
