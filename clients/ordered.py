"""Long columns of texts, put into order: which are equal, without a table of them in memory."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["begins", "repeats", "together"]


def together(parts: list[pa.Array]) -> pa.Array:
    """Return large strings as one array; the list is emptied, so that memory is not taken twice."""
    joined = pa.concat_arrays([pa.array([], pa.large_string()), *parts])
    parts.clear()
    return joined


def begins(ordered: pa.Array) -> NDArray[np.bool_]:
    """Return whether each of some texts in order, none missing, is another one than the text before it."""
    found = np.ones(len(ordered), dtype=np.bool_)
    if len(ordered) > 1:
        found[1:] = pc.not_equal(ordered.slice(1), ordered.slice(0, len(ordered) - 1)).to_numpy(zero_copy_only=False)
    return found


def repeats(texts: pa.Array) -> bool:
    """Return whether any of some texts, none missing, is there twice."""
    return not begins(texts.take(pc.sort_indices(texts))).all()
