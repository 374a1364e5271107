"""The same client as one that trains with torch would begin."""

import torch

from peer.client import app

__all__ = ["app"]

torch.set_num_threads(1)
