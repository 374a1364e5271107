"""Text of strangers, made safe for a terminal, a log and a page."""

__all__ = ["plain"]


def plain(text: str) -> str:
    """Return a text without anything that acts on who reads it: escapes, line breaks, reversed writing become "?"."""
    return "".join(character if character.isprintable() else "?" for character in text)
