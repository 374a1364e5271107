"""A plain Flower app, as Flower's own templates have it."""
