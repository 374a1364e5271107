"""One look per model, the same in every figure and table.

The hues stay apart under the common colour-vision deficiencies, every one of them carries text on white or on
the simulation band at a contrast above 4.5, and the marker's shape says the same thing again.
"""

from dataclasses import dataclass

from markupsafe import Markup

__all__ = ["GRID", "INK", "OURS", "QUIET", "WHITE", "Look", "look", "swatch"]

INK = "#1d2733"
QUIET = "#56616d"
GRID = "#d9dde1"
WHITE = "#ffffff"
OURS = "federated-private"


@dataclass(frozen=True)
class Look:
    """How a model is drawn.

    Args:
        colour: Of its lines, markers and labels.
        marker: Matplotlib's name of its marker.
        outline: The same marker as an SVG path in a box of 12 by 12.
        filled: Whether the marker is solid, as those of the private models are.
    """

    colour: str
    marker: str
    outline: str
    filled: bool

    @property
    def fill(self) -> str:
        """The colour inside the marker."""
        return self.colour if self.filled else WHITE

    @property
    def line(self) -> str:
        """The style of the model's line: solid where private, dashed elsewhere."""
        return "-" if self.filled else "--"


_LOOKS = {
    OURS: Look("#0a5ca8", "o", "M6 1.5a4.5 4.5 0 1 0 .01 0z", filled=True),
    "alone-private": Look("#b3470b", "s", "M2 2h8v8h-8z", filled=True),
    "pooled-private": Look("#6b5b00", "P", "M4.5 1h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z", filled=True),
    "popularity-private": Look(
        "#7a4a00", "*", "M6 .8l1.6 3.6 3.9.4-2.9 2.6.8 3.9L6 9.3l-3.4 2 .8-3.9L.5 4.8l3.9-.4z", filled=True
    ),
    "alone": Look("#8a3b78", "D", "M6 1l5 5-5 5-5-5z", filled=False),
    "federated": Look("#00705a", "^", "M6 1.5l5 9h-10z", filled=False),
    "pooled": Look("#454f59", "v", "M6 10.5l5-9h-10z", filled=False),
    "popularity": Look("#9c2f2f", "X", "M3 1l3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3-3-3z", filled=False),
}
_STRANGER = Look(QUIET, "p", "M6 1l5 4-2 6h-6l-2-6z", filled=False)


def look(key: str) -> Look:
    """Return how the model of a key is drawn; a key of a later format gets a neutral look.

    Args:
        key: The model's key.

    Returns:
        Its look.
    """
    return _LOOKS.get(key, _STRANGER)


def swatch(key: str) -> Markup:
    """Draw a model's marker for a table, hidden from screen readers since its name stands beside it.

    Args:
        key: The model's key.

    Returns:
        An SVG element as large as the text around it.
    """
    found = look(key)
    return Markup(
        '<svg class="swatch" viewBox="0 0 12 12" aria-hidden="true" focusable="false">'
        '<path d="{}" fill="{}" stroke="{}" stroke-width="1.6"/></svg>'
    ).format(found.outline, found.fill, found.colour)
