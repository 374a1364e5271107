"""The parts that requests and admissions share: fingerprints, times, and one byte string for one meaning."""

import datetime
import hashlib

import pytest

from coterie.privacy.joining.forms import JoinFault, compare, fingerprint, moment, stamp

KEY = "ed25519:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
NOON = datetime.datetime(2030, 1, 2, 12, 0, 5, 999, tzinfo=datetime.UTC)


def test_a_fingerprint_is_the_first_128_bits_of_sha_256_in_eight_groups():
    shown = fingerprint(KEY)
    assert bytes.fromhex(shown) == hashlib.sha256(KEY.encode()).digest()[:16]
    assert [len(group) for group in shown.split(" ")] == [4] * 8


def test_keys_that_differ_in_one_character_have_other_fingerprints():
    found = {fingerprint(KEY[:i] + chr(ord(KEY[i]) ^ 1) + KEY[i + 1 :]) for i in range(len(KEY))}
    assert len(found) == len(KEY)
    assert fingerprint(KEY) not in found


@pytest.mark.parametrize("change", [str.upper, lambda said: said.replace(" ", ""), lambda said: said.replace(" ", "-")])
def test_how_a_fingerprint_is_spelled_does_not_matter(change):
    compare(change(fingerprint(KEY)), fingerprint(KEY), whose="bank")


@pytest.mark.parametrize("place", range(39))
def test_one_digit_of_a_fingerprint_matters(place):
    shown = fingerprint(KEY)
    if shown[place] == " ":
        return
    other = "0" if shown[place] != "0" else "1"
    with pytest.raises(JoinFault, match="exchanged on its way"):
        compare(shown[:place] + other + shown[place + 1 :], shown, whose="bank")


@pytest.mark.parametrize("said", ["", " ", fingerprint(KEY)[:-1], fingerprint(KEY)[:4], fingerprint(KEY) + "0"])
def test_a_part_of_a_fingerprint_is_not_enough(said):
    with pytest.raises(JoinFault):
        compare(said, fingerprint(KEY), whose="bank")


def test_a_time_comes_back_in_whole_seconds_of_utc():
    there = NOON.astimezone(datetime.timezone(datetime.timedelta(hours=5)))
    assert stamp(there) == stamp(NOON) == "2030-01-02T12:00:05+00:00"
    assert moment(stamp(NOON), "x") == NOON.replace(microsecond=0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "noon",
        "2030-01-02",
        "2030-01-02T12:00:05",
        "2030-01-02T12:00:05Z",
        "2030-01-02T12:00:05.5+00:00",
        "2030-01-02T14:00:05+02:00",
        "2030-01-02 12:00:05+00:00",
        "20300102T120005+0000",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_a_time_has_one_spelling(text):
    with pytest.raises(JoinFault, match="must be a time in UTC"):
        moment(text, "request.at")
