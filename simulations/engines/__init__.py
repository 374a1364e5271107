"""Engines that carry messages between the coordinator's app and the partners' apps in a simulation."""

__all__: list[str] = []
