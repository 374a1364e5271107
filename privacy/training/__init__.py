"""Private training: Opacus, with the customer as the unit and secret noise. The one room here that knows torch.

The book-keeping optimisers are for any user of Opacus, with any model of linear layers and embeddings.
"""

from coterie.privacy.training.adafest import AdaFestSGD, Selection
from coterie.privacy.training.bookkeeping import BookkeepingModule, BookkeepingOptimizer, BookkeepingSGD
from coterie.privacy.training.customers import Customers
from coterie.privacy.training.lazynoise import LazySGD
from coterie.privacy.training.rowwise import scores
from coterie.privacy.training.sums import Summer, SumSettings
from coterie.privacy.training.trainer import Trainer, TrainerSettings

__all__ = [
    "AdaFestSGD",
    "BookkeepingModule",
    "BookkeepingOptimizer",
    "BookkeepingSGD",
    "Customers",
    "LazySGD",
    "Selection",
    "SumSettings",
    "Summer",
    "Trainer",
    "TrainerSettings",
    "scores",
]
