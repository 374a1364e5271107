"""What can go wrong in a secure sum: our own misuse, and a peer's fault."""

from coterie.privacy.errors import CoterieError, Fault

__all__ = ["Misuse", "PeerFault", "SecAggError", "blame", "misused"]


class SecAggError(CoterieError):
    """A secure sum that does not go on."""


class Misuse(SecAggError):
    """This side was asked to do what its state does not allow."""


class PeerFault(SecAggError):
    """A message that is not what the protocol has there.

    Args:
        partner: Whose message it is; "" for the coordinator's.
        fault: What is wrong with it.
    """

    def __init__(self, partner: str, fault: Fault) -> None:
        super().__init__(fault)
        self.partner = partner

    def __reduce__(self) -> tuple[type[CoterieError], tuple[str, Fault]]:  # type: ignore[override]
        """Pickle with the partner, so that blame survives the way back from a worker process."""
        return type(self), (self.partner, self.faults[0])


def blame(partner: str, rule: str) -> PeerFault:
    """Return the fault of a partner's message, or with "" of the coordinator's."""
    place = f"a secure sum's message of {partner}" if partner else "a secure sum's request"
    return PeerFault(partner, Fault(place, rule, "go on without its sender, and ask there"))


def misused(rule: str) -> Misuse:
    """Return the error of a wrong call."""
    return Misuse(Fault("secure sum", rule, "this is a fault of the program that asked: report it"))
