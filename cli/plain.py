"""Text of strangers, made safe for a terminal."""

__all__ = ["plain"]


def plain(text: str) -> str:
    """Return a text without anything that a terminal would act on: escapes, line breaks, reversed writing."""
    return "".join(character if character.isprintable() else "?" for character in text)
