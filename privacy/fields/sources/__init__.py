"""Where key-encryption keys come from: files, a passphrase, a mount, the environment, a key server's transit engine."""

__all__: list[str] = []
