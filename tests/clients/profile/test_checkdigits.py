"""Check digits: published numbers pass, any digit changed or neighbours swapped fails, random ones pass by chance."""

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.clients.profile import checkdigits

# Numbers that standards, authorities and payment services print as examples.
VALID = {
    "card": ["4111111111111111", "5555555555554444", "378282246310005", "6011111111111117", "3530111333300000"],
    "iban": ["GB82WEST12345698765432", "DE89370400440532013000", "FR1420041010050500013M02606", "NO9386011117947"],
    "ssn": ["219099999", "078051120", "457555462"],
    "nino": ["QQ123456C".replace("QQ", "AA"), "AB123456D", "JG103759A"],
    "spanish_identity": ["12345678Z", "X1234567L", "54362315K"],
    "codice_fiscale": ["RSSMRA85T10A562S", "MRTMTT91D08F205J", "RCCMNL83S18D969H"],
    "nir": ["255081416802538", "253072B07300470", "295109912611193"],
    "steuer_id": ["86095742719", "47036892816", "65929970489", "36574261809"],
    "resident_identity": ["11010519491231002X", "440524188001010014"],
    "aadhaar": ["234123412346", "999941057058", "999971658847"],
}
INVALID = {
    "card": ["4111111111111112", "411111111111", "9111111111111111111", "4111 1111 1111 1111", ""],
    "iban": ["GB82WEST12345698765431", "GB82", "gb82west12345698765432", "1282WEST12345698765432"],
    "ssn": ["000123456", "666123456", "900123456", "123006789", "123450000", "12345678"],
    "nino": ["BG123456A", "GB123456A", "DA123456A", "AO123456A", "AA123456E", "AA12345A"],
    "spanish_identity": ["12345678A", "1234567Z", "W1234567L", "X1234567A"],
    "codice_fiscale": ["RSSMRA85T10A562T", "RSSMRA85Z10A562S", "RSSMRA85T10A562"],
    "nir": ["255081416802539", "955081416802538", "25508141680253"],
    "steuer_id": ["86095742718", "06095742719", "12345678903", "11111111111"],
    "resident_identity": ["110105194912310021", "110105194913310023", "01010519491231002X"],
    "aadhaar": ["234123412347", "134123412346", "23412341234"],
}
# Random texts of the shape, and the share of them that keeps the rule: one in as many as there are check signs.
CHANCES = {
    "card": (lambda r: "4" + digits(r, 15), 1 / 10),
    "iban": (lambda r: "DE" + digits(r, 20), 1 / 97),
    "spanish_identity": (lambda r: digits(r, 8) + r.choice(string.ascii_uppercase), 1 / 26),
    "codice_fiscale": (lambda r: "RSSMRA85T10A" + digits(r, 3) + r.choice(string.ascii_uppercase), 1 / 26),
    "nir": (lambda r: "2" + digits(r, 14), 1 / 100),
    "resident_identity": (lambda r: "11010519491231" + digits(r, 3) + r.choice("0123456789X"), 1 / 11),
    "aadhaar": (lambda r: "9" + digits(r, 11), 1 / 10),
}


def digits(source, count):
    return "".join(source.choice(string.digits) for _ in range(count))


@pytest.mark.parametrize(("check", "text"), [(check, text) for check, texts in VALID.items() for text in texts])
def test_a_published_number_passes(check, text):
    assert getattr(checkdigits, check)(text)


@pytest.mark.parametrize(("check", "text"), [(check, text) for check, texts in INVALID.items() for text in texts])
def test_a_number_that_breaks_the_rule_fails(check, text):
    assert not getattr(checkdigits, check)(text)


DETECT_ONE = ("card", "iban", "nir", "steuer_id", "aadhaar", "resident_identity", "spanish_identity")


@pytest.mark.parametrize("check", DETECT_ONE)
def test_every_digit_that_is_changed_is_found(check):
    for text in VALID[check]:
        for place, sign in enumerate(text):
            for other in string.digits:
                if sign.isdigit() and other != sign:
                    assert not getattr(checkdigits, check)(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize("check", ["aadhaar", "nir", "iban", "resident_identity"])
def test_neighbours_that_are_swapped_are_found(check):
    for text in VALID[check]:
        for place in range(len(text) - 1):
            if text[place] != text[place + 1]:
                swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
                assert not getattr(checkdigits, check)(swapped)


@pytest.mark.parametrize("check", sorted(CHANCES))
def test_random_numbers_pass_as_often_as_there_are_check_signs(check):
    make, chance = CHANCES[check]
    source, tries = random.Random(f"chance of {check}"), 20_000  # noqa: S311 - a test
    passed = sum(getattr(checkdigits, check)(make(source)) for _ in range(tries))
    deviation = (tries * chance * (1 - chance)) ** 0.5
    assert abs(passed - tries * chance) < 5 * deviation


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_any_text_is_answered(text):
    for check in checkdigits.__all__:
        assert getattr(checkdigits, check)(text) in {True, False}


@given(st.integers(10**11, 10**12 - 1))
def test_one_of_ten_last_digits_is_aadhaars(number):
    body = str(number)[:11]
    passed = [last for last in string.digits if checkdigits.aadhaar(body + last)]
    assert len(passed) == (1 if body[0] not in "01" else 0)
