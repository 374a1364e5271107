"""Private training: Opacus, with the customer as the unit and secret noise. The one room here that knows torch."""

from coterie.privacy.training.customers import Customers
from coterie.privacy.training.rowwise import scores
from coterie.privacy.training.sums import Summer, SumSettings
from coterie.privacy.training.trainer import Trainer, TrainerSettings

__all__ = ["Customers", "SumSettings", "Summer", "Trainer", "TrainerSettings", "scores"]
