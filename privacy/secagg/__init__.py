"""Secure aggregation, sans-IO: sums of whole-number vectors that are opened as a sum alone.

The protocol is that of Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning" (CCS
2017), with identities that the partners pin, on the complete graph; it is specified in `docs/formats/secagg.md`.
"""

__all__: list[str] = []
