"""Keys in a variable of the process' environment, put there by whoever starts it (a service manager, a secret store).

Format: `name:base64,name:base64`, oldest first, each key 32 bytes; `docs/formats/keys.md`.
"""

import base64
import binascii
import re
from collections.abc import Mapping

from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.keysource import KEY_BYTES
from coterie.privacy.fields.sources.held import HeldKeys, not_there

__all__ = ["EnvironmentKeys"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", re.ASCII)
_BASE64 = 4 * ((KEY_BYTES + 2) // 3)  # characters


class EnvironmentKeys(HeldKeys):
    """Keys that the environment holds; new ones are added, and old ones removed, where the variable is set.

    Args:
        variable: Its name.
        environment: The process' environment.

    Leaks:
        The variable stays readable in this process' memory, to its children, and to its user and the administrator
        through the operating system, for as long as the process runs.
    """

    kind = "environment"
    apart = True

    def __init__(self, variable: str, environment: Mapping[str, str]) -> None:
        super().__init__()
        self._variable, self._environment = variable, environment

    def _names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._items())

    def _key(self, epoch: str) -> bytearray:
        for name, text in self._items():
            if name == epoch:
                return bytearray(base64.b64decode(text))
        raise not_there(epoch)

    def _make(self, newest: str) -> None:
        rule = f"has no key after {newest}, and none can be made from here"
        fix = f"add ,NAME: and base64 of {KEY_BYTES} random bytes at its end, where it is set, and start again"
        raise KeyFault(Fault(self._place, rule, fix))

    def _destroy(self, epoch: str) -> None:
        rule = f"holds the key of epoch {epoch}, which cannot be destroyed from here"
        raise KeyFault(Fault(self._place, rule, f"remove {epoch} from it, where it is set, and start again"))

    @property
    def _place(self) -> str:
        return f"the variable {self._variable}"

    def _items(self) -> list[tuple[str, str]]:
        text = self._environment.get(self._variable, "").strip()
        if not text:
            fix = f"set it to NAME: and base64 of {KEY_BYTES} random bytes, or correct [keys] of coterie.toml"
            raise KeyFault(Fault(self._place, "is not set, or is empty", fix))
        items = [tuple(item.strip().partition(":")[::2]) for item in text.split(",")]
        for place, (name, key) in enumerate(items, 1):
            if not _NAME.fullmatch(name) or not _is_key(key):
                rule = f"must be name:base64 with a name of 1 to 40 letters and digits and a key of {KEY_BYTES} bytes"
                raise KeyFault(Fault(f"{self._place}, key {place} of {len(items)}", rule, "correct it where it is set"))
        if len({name for name, _ in items}) < len(items) or len({key for _, key in items}) < len(items):
            raise KeyFault(Fault(self._place, "names a key or an epoch twice", "correct it where it is set"))
        return [(name, key) for name, key in items]


def _is_key(text: str) -> bool:
    if len(text) != _BASE64:
        return False
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return False
    # One spelling for one key: base64 has spare bits, in which two texts could differ.
    return len(raw) == KEY_BYTES and base64.b64encode(raw).decode() == text
