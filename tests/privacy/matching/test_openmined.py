"""Matches beside OpenMined's private set intersection, which shares no code, curve or protocol with ours.

It lives in an environment of its own, made here: it fixes a version of protobuf that Flower does not have.
"""

import json
import random
import subprocess
import venv

import pytest

from coterie.tests.privacy.matching.matchkit import Match, terms_of

PACKAGE = "openmined-psi==2.0.6"

# Every pair of sets is intersected with both as the one who asks; without false positives.
PEER = """
import json, sys
import private_set_intersection.python as psi

def shared(asking, asked):
    client, server = psi.client.CreateWithNewKey(True), psi.server.CreateWithNewKey(True)
    setup = server.CreateSetupMessage(1e-9, len(asking), asked, psi.DataStructure.RAW)
    found = client.GetIntersection(setup, server.ProcessRequest(client.CreateRequest(asking)))
    return [asking[place] for place in found]

json.dump([shared(*pair) for pair in json.load(sys.stdin)], sys.stdout)
"""


@pytest.fixture(scope="module")
def openmined(tmp_path_factory):
    """Return what intersects pairs of lists."""
    folder = tmp_path_factory.mktemp("openmined")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the oracle {PACKAGE} cannot be installed here: {done.stderr}"

    def intersect(pairs):
        asked = json.dumps(pairs)
        done = subprocess.run([python, "-c", PEER], input=asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [set(one) for one in json.loads(done.stdout)]

    return intersect


def lists_of(partners, draw):
    """Return random lists that overlap from not at all to wholly, some of one customer."""
    everybody = [f"j\u00f6rg{number}@example.com" for number in range(draw.choice((1, 3, 40, 90)))]
    return {name: draw.sample(everybody, draw.randint(1, len(everybody))) for name in partners}


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_matched_rows_are_those_that_openmined_finds(openmined, count):
    draw, pairs, expected = random.Random(count), [], []  # noqa: S311 - chooses cases
    terms = terms_of(count, "rows")
    for case in range(30):
        lists = lists_of(terms.names, draw)
        match = Match(terms, lists, seed=case).run().exchange()
        for name in terms.names:
            for other in terms.names:
                if other != name:
                    pairs.append((lists[name], lists[other]))
                    expected.append(match.parties[name].shared_with(other))
    assert openmined(pairs) == expected
    assert any(expected)
    assert not all(expected)


@pytest.mark.slow
def test_equal_tokens_are_of_the_customers_that_openmined_finds(openmined):
    draw, pairs, expected = random.Random(7), [], []  # noqa: S311 - chooses cases
    terms = terms_of(3, "tokens")
    for case in range(20):
        lists = lists_of(terms.names, draw)
        tokens = Match(terms, lists, seed=case).run().tokens()
        for name in terms.names:
            for other in terms.names:
                if other != name:
                    theirs = set(tokens[other].values())
                    pairs.append((lists[name], lists[other]))
                    expected.append({who for who, token in tokens[name].items() if token in theirs})
    assert openmined(pairs) == expected
    assert any(expected)
