"""Columns that look as if they said who somebody is: found where they do, by chance hardly ever, told with a reason."""

import random

import hypothesis
import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.clients.profile import checkdigits
from coterie.clients.profile.detectors import DETECTORS, counts, share_of
from coterie.clients.profile.naming import says, special, suggested
from coterie.clients.profile.signs import looks_like_a_value, signs_of

COUNT = 60


def kinds(name, values):
    return [sign.kind for sign in signs_of(name, values) if sign.by != "name"]


def numbers(check, make):
    """The first numbers that a check lets pass, of those that are made."""
    source, found = random.Random("signs"), []  # noqa: S311 - a test
    while len(found) < COUNT:
        text = make(source)
        if check(text):
            found.append(text)
    return found


def digits(count, first=""):
    return lambda source: first + "".join(source.choice("0123456789") for _ in range(count))


def example(region, place):
    """A number that the telephone library gives as a region's example, with other last digits."""
    number = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.FIXED_LINE)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)[:-2] + f"{place:02d}"


FOUND = {
    "e-mail address": [f"person.{i}+news@mail-{i}.example.co.uk" for i in range(COUNT)],
    "telephone number, international": [example("GB", i) for i in range(COUNT)],
    "payment card": [f"{c[:4]} {c[4:8]} {c[8:12]} {c[12:]}" for c in numbers(checkdigits.card, digits(15, "4"))],
    "bank account (IBAN)": numbers(checkdigits.iban, digits(20, "DE")),
    "social security number (US)": [f"{100 + i}-{10 + i % 80}-{4000 + i}" for i in range(COUNT)],
    "National Insurance number (UK)": [f"AB {i:02d} 34 56 C" for i in range(COUNT)],
    "DNI or NIE (Spain)": [
        f"{number}-{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}" for number in range(12345678, 12345678 + COUNT)
    ],
    "codice fiscale (Italy)": numbers(
        checkdigits.codice_fiscale, lambda s: f"RSSMRA85T10A{s.randrange(1000):03d}{s.choice('ABCDEFGHIJKLMNOPQRS')}"
    ),
    "NIR (France)": numbers(checkdigits.nir, digits(14, "2")),
    "Steuer-ID (Germany)": numbers(checkdigits.steuer_id, digits(10, "8")),
    "resident identity number (China)": numbers(checkdigits.resident_identity, digits(4, "11010519491231")),
    "Aadhaar number (India)": numbers(checkdigits.aadhaar, digits(11, "7")),
    "IP address": [f"192.0.2.{i}" for i in range(COUNT)],
    "geographic position": [f"{i / 2:.4f}, {-i:.5f}" for i in range(COUNT)],
    "free text": [f"she called {i} times about the parcel that never came" for i in range(COUNT)],
}
WEAK = {
    "telephone number, national": ("mobile", [f"07700 9000{i:02d}" for i in range(COUNT)]),
    "social security number (US), without hyphens": ("ssn", [f"21909{i:04d}" for i in range(1, COUNT)]),
    "date of birth": ("geburtsdatum", [f"19{i + 20}-03-14" for i in range(COUNT)]),
    "latitude or longitude": ("geo_lat", [f"{i}.12345" for i in range(COUNT)]),
    "name of a person": ("lastName", [f"Mc{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10]}" for i in range(COUNT)]),
}


def test_every_kind_has_an_example_here():
    assert {detector.kind for detector in DETECTORS} == {*FOUND, *WEAK}


@pytest.mark.parametrize("kind", FOUND)
def test_a_kind_is_found_by_what_a_column_holds_whatever_its_name(kind):
    assert kinds("x17", FOUND[kind]) == [kind]


@pytest.mark.parametrize("kind", WEAK)
def test_a_weak_kind_is_found_only_where_the_name_agrees(kind):
    name, values = WEAK[kind]
    assert kind in kinds(name, values)
    assert kind not in kinds("x17", values)


def test_an_address_in_few_of_many_remarks_is_found():
    remarks = [f"item {i}" for i in range(2000)]
    assert kinds("note", [*remarks, *FOUND["e-mail address"]]) == ["e-mail address"]
    assert kinds("note", remarks) == []


@pytest.mark.parametrize(
    "make",
    [
        digits(9, "1"),
        digits(10, "2"),
        digits(11, "3"),
        digits(15, "4"),
        digits(17, "1"),
        lambda s: f"{s.gauss(50, 9):.6f}",
    ],
    ids=["10 digits", "11 digits", "12 digits", "16 digits", "18 digits", "decimals"],
)
@pytest.mark.parametrize("count", [5, 50, 2000])
def test_random_numbers_look_like_nothing(make, count):
    source = random.Random(f"nothing {count}")  # noqa: S311 - a test
    assert kinds("x17", [make(source) for _ in range(count)]) == []


@pytest.mark.parametrize("detector", [d for d in DETECTORS if d.chance == 0.1 and not d.weak], ids=lambda d: d.kind)
def test_a_check_digit_alone_never_names_a_column(detector):
    """As many as a tenth of random numbers pass; ten times the chance that is stated would still be told apart."""
    for tested in (1, 5, 6, 20, 100, 2000):
        by_chance = round(0.1 * tested + 4 * (0.09 * tested) ** 0.5)
        assert not counts(detector, min(by_chance, tested), tested)
    assert counts(detector, 2000, 2000)


@given(st.integers(0, 300), st.integers(1, 300))
@hypothesis.example(3, 3)
def test_what_counts_is_more_than_chance_and_more_of_it_never_counts_less(passed, tested):
    """Against the exact binomial tail: what counts is rarer by chance than one in a million."""
    passed = min(passed, tested)
    for detector in DETECTORS:
        if counts(detector, passed, tested):
            # One in a million itself is on either side by rounding: three of three at one in a hundred.
            assert tail(passed, tested, detector.chance) < 1e-6 * (1 + 1e-9)
            assert passed >= detector.threshold * tested
            assert passed == tested or counts(detector, passed + 1, tested)


def tail(least, tries, chance):
    """P(Binomial(tries, chance) >= least), from the recursion of its terms."""
    term, total = (1 - chance) ** tries, 0.0
    for k in range(tries + 1):
        total += term if k >= least else 0.0
        term *= (tries - k) / (k + 1) * chance / (1 - chance)
    return total


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_every_detector_answers_to_any_text(text):
    for detector in DETECTORS:
        assert share_of(detector, [text]) in {(0, 1), (1, 1)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("EMail_Adresse", "e-mail address"),
        ("customerEmail", "e-mail address"),
        ("téléphone", "telephone number, national"),
        ("Straße", "postal address"),
        ("kunden_vorname", "name of a person"),
        ("cust-last-name", "name of a person"),
        ("DATA NASCITA", "date of birth"),
        ("device_id", "network or device"),
    ],
)
def test_names_are_read_in_several_spellings(name, kind):
    assert kind in says(name)


@pytest.mark.parametrize(
    "name", ["spend_90d", "tablet", "latest_order", "product_name", "emailed_offers_90", "filename"]
)
def test_words_that_hold_such_a_word_say_nothing(name):
    assert says(name) == []


def test_a_sign_by_name_alone_says_so():
    (sign,) = signs_of("email", ["a", "b", "c"])
    assert (sign.by, sign.passed, sign.tested) == ("name", 0, 3)


def test_special_categories_and_quasi_identifiers_are_known_by_name():
    assert special("Kirchensteuer") == ["religion"]
    assert special("health_score") == ["health"]
    assert special("wealth") == []
    names = ["spend", "Alter", "PLZ", "gender", "city", "birth_year", "job", "clicks"]
    assert suggested(names) == ["Alter", "PLZ", "gender", "city", "birth_year"]


@pytest.mark.parametrize("name", ["a.b@example.org", "17", "-3.5", "+442079460018", "4111111111111111"])
def test_a_name_that_is_a_cell_is_known(name):
    assert looks_like_a_value(name)


@pytest.mark.parametrize("name", ["spend", "q4_2030", "f17", "Spend in EUR", ""])
def test_a_name_that_is_a_name_is_left(name):
    assert not looks_like_a_value(name)
