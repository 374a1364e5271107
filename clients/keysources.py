"""The key sources that one process holds: made once for each workspace, so that a passphrase is worked on once."""

from collections.abc import Callable
from pathlib import Path

from coterie.clients.workspace import Workspace
from coterie.privacy.fields.keysource import KeySource
from coterie.privacy.fields.sources.settings import KeySettings

__all__ = ["HeldSources", "Sources"]

Sources = Callable[[Workspace], KeySource]
"""Returns a workspace's source of keys; raises as `Workspace.key_source`."""


class HeldSources:
    """The key sources of a process that answers many questions; one whose settings changed is made anew."""

    def __init__(self) -> None:
        self._held: dict[Path, tuple[KeySettings, KeySource]] = {}

    def __call__(self, workspace: Workspace) -> KeySource:
        """Return a workspace's source.

        Raises:
            FileFault: Its settings are wrong.
            KeyFault: A passphrase is wanted and cannot be had.
        """
        settings = workspace.key_settings
        held = self._held.get(workspace.root)
        if held is None or held[0] != settings:
            held = self._held[workspace.root] = settings, workspace.key_source()
        return held[1]
