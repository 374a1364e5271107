"""How many changed bundles a review accepts: none. Changes without the partner's key, of every kind, in one table.

    python benchmarks/mutations.py --output benchmarks/results/mutations.json

A federation of three partners runs in a temporary folder; one partner's bundle is changed at random, a bit, a line, a
value or a key at a time, and verified each time. What is counted as accepted is any verdict but "fails", and any error
but the one that says that the file is no bundle.
"""

import collections
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / ".dev"))  # the tests' own federation and mutations

from conditions import arguments_for, conditions, publish

from coterie.privacy.review.bundle import BundleFault
from coterie.tests.privacy.review.bundles import MUTATIONS, made, mutations, verdict_of


def outcome(bundle: bytes) -> str:
    """Return what a review says of a changed bundle."""
    try:
        status = verdict_of(bundle).status
    except BundleFault:
        return "no bundle"
    except Exception as error:  # noqa: BLE001 - it is what is looked for
        return f"error: {type(error).__name__}"
    return "refused" if status == "fails" else "accepted"


def main() -> None:
    parser = arguments_for(__doc__)
    parser.add_argument("--count", type=int, default=13_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    bundle, other = made().bundle, made().bundles["birch"]
    started = time.perf_counter()
    found = collections.Counter(
        (kind, outcome(changed)) for kind, changed in mutations(bundle, other, arguments.count, arguments.seed)
    )
    told = ("no bundle", "refused")
    result = {
        "what": "changed bundles that a review accepts",
        **conditions(),
        "bundle_bytes": len(bundle),
        "tried": found.total(),
        "accepted": sum(count for (_, said), count in found.items() if said not in told),
        "seconds": round(time.perf_counter() - started, 1),
        "kinds": [
            {
                "kind": kind,
                "tried": sum(count for (one, _), count in found.items() if one == kind),
                "accepted": sum(count for (one, said), count in found.items() if one == kind and said not in told),
                "said": {said: count for (one, said), count in sorted(found.items()) if one == kind},
            }
            for kind in MUTATIONS
        ],
    }
    publish(result, arguments.output)


if __name__ == "__main__":
    main()
