"""One party of OpenMined's PSI, in an environment of its own, without coterie: OpenMined fixes a version of protobuf.

    PYTHON benchmarks/matching_peer.py PLACE SIZE

A party may be client and server at once. The library is used as its documentation has it: Golomb-compressed sets,
false positives below 1e-9 for a whole query, and both know the intersection's members only if both ask.
"""

import sys

import private_set_intersection.python as psi
from matching_pipe import Answer, emails, serve

FALSE = 1e-9


class Party:
    """What a party answers.

    Args:
        place: 0 or 1.
        size: Its customers.
    """

    def __init__(self, place: int, size: int) -> None:
        self._client = psi.client.CreateWithNewKey(reveal_intersection=True)
        self._server = psi.server.CreateWithNewKey(reveal_intersection=True)
        self._emails = list(emails(size, place))

    def request(self, _: bytes) -> Answer:
        return {}, self._client.CreateRequest(self._emails).SerializeToString()

    def setup(self, _: bytes, others: int) -> Answer:
        message = self._server.CreateSetupMessage(FALSE, others, self._emails, psi.DataStructure.GCS)
        return {}, message.SerializeToString()

    def process(self, data: bytes) -> Answer:
        request = psi.Request()
        request.ParseFromString(data)
        return {}, self._server.ProcessRequest(request).SerializeToString()

    def intersect(self, data: bytes, split: int) -> Answer:
        setup, response = psi.ServerSetup(), psi.Response()
        setup.ParseFromString(data[:split])
        response.ParseFromString(data[split:])
        return {"shared": len(self._client.GetIntersection(setup, response))}, b""


if __name__ == "__main__":
    if int(sys.argv[1]) < 0:
        serve({})
    else:
        one = Party(int(sys.argv[1]), int(sys.argv[2]))
        serve({name: getattr(one, name) for name in ("request", "setup", "process", "intersect")})
