"""A look at the whole vault: every stream is opened to its last byte, and nothing of it is shown."""

from typing import Any

from coterie.clients.vault import DATASETS, Vault

__all__ = ["check_vault"]


def check_vault(vault: Vault) -> list[dict[str, Any]]:
    """Open every column of every data set, and say of each data set how it stands.

    Args:
        vault: The vault.

    Returns:
        dataset, version, columns, rows, bytes, keys and epoch of each; for the partner's own eyes.

    Raises:
        SealFault: Something was changed, cut, exchanged or put back.
        KeyFault: The keys cannot be had.
    """
    found = []
    for name in DATASETS:
        if not vault.holds(name):
            continue
        table = vault.table(name)
        for _ in table.pieces(table.schema.names):
            pass
        manifest = table.manifest
        found.append(
            {
                "dataset": name,
                "version": manifest.version,
                "columns": len(manifest.streams),
                "rows": table.rows,
                "bytes": sum(stream.size for stream in manifest.streams),
                "keys": manifest.keys,
                "epoch": manifest.epoch,
            }
        )
    return found
