"""One object in place of many: how small messages travel through Flower's deployment.

Flower sends every record, array and piece of an array of a message as an object of its own, each in a request of its
own, in both directions and on both sides of the SuperLink. Most of coterie's messages are small, and most of a round's
time went into those requests. So a small content is folded into one record, and unfolded at the other end; a large one
goes as it is, in Flower's pieces.

Flower announces a message before its pieces are there, and whoever asks for a piece too early waits a second before it
asks again. Two parties that ask often do so nearly every time; `soon` makes that second a moment.
"""

from flwr.app import ConfigRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, pull_objects
from google.protobuf.message import DecodeError

from coterie.clients.records import WireFault, wire_fault

__all__ = ["WireFault", "fold", "soon", "unfold"]

_NAME, _KEY = "folded", "bytes"
_MOMENT = 0.03  # seconds; each further wait is twice as long, as Flower has it
_WHOLE = 30.0  # seconds for the pieces of an announced message to be on their way
_LARGEST = 128 << 10  # bytes; Flower hashes and writes one long string of bytes slowly


def fold(content: RecordDict) -> RecordDict:
    """Return a small content as one record, and a large one as it is.

    Args:
        content: Of a message.
    """
    proto = recorddict_to_proto(content)
    if proto.ByteSize() > _LARGEST:
        return content
    return RecordDict({_NAME: ConfigRecord({_KEY: proto.SerializeToString(deterministic=True)})})


def unfold(content: RecordDict) -> RecordDict:
    """Return what was folded, and anything else as it is.

    Args:
        content: Of a message that came; believed in nothing.

    Raises:
        WireFault: It looks folded and is not.
    """
    if _NAME not in content:
        return content
    record = content[_NAME]
    packed = record.get(_KEY) if isinstance(record, ConfigRecord) and len(record) == 1 and len(content) == 1 else None
    if not isinstance(packed, bytes) or len(packed) > _LARGEST:
        raise wire_fault("a folded message", f"must be one record of at most {_LARGEST} bytes")
    try:
        return recorddict_from_proto(ProtoRecordDict.FromString(packed))
    except (DecodeError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise wire_fault("a folded message", "cannot be unfolded") from None


def soon() -> None:
    """Have this process ask again after a moment for a piece of a message that is not there yet, and not for ever.

    A sender that dies between the announcement and the pieces leaves a message that never becomes whole. Flower would
    wait for two hours; after half a minute the message counts as lost, and what was asked is asked again.
    """
    for pulling in (pull_objects, pull_and_inflate_object_from_tree):
        defaults = pulling.__kwdefaults__ or {}
        defaults["initial_backoff"] = _MOMENT
        defaults["max_time"] = _WHOLE
