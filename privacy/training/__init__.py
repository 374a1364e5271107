"""Private training: Opacus, with the customer as the unit and secret noise. The one room here that knows torch."""

from coterie.privacy.training.customers import Customers
from coterie.privacy.training.trainer import Trainer, TrainerSettings

__all__ = ["Customers", "Trainer", "TrainerSettings"]
