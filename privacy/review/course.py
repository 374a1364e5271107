"""How budgets went, for a picture: as many points as it has room for, however long the ledger is."""

from coterie.privacy.review.verdict import Point

__all__ = ["Course"]

_MOST = 4096


class Course:
    """Points in order: every one at first, then every second, fourth, ..."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._step, self._seen = 1, 0

    def wants(self) -> bool:
        """Return whether the next point is one to keep."""
        self._seen += 1
        return self._seen % self._step == 0

    def keep(self, point: Point) -> None:
        """Keep a point."""
        self.points.append(point)
        if len(self.points) > _MOST:
            self.points, self._step = self.points[::2], self._step * 2
