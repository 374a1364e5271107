"""Canonical identifiers: published vectors, one customer in several spellings, and texts that nobody may guess at."""

import base64
import hashlib
import subprocess
import sys
import unicodedata

import idna
import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coterie.privacy.matching import phones
from coterie.privacy.matching.errors import MatchFault
from coterie.privacy.matching.forms import LONGEST
from coterie.privacy.matching.identifiers import KINDS, REASONS, RULES, Canonical, canonical, item, rules_version


def value(kind, text, **more):
    found = canonical(kind, text, **more)
    assert found.reason == "", (text, found.reason)
    return found.value


def reason(kind, text, **more):
    found = canonical(kind, text, **more)
    assert found.value is None, text
    assert found.reason in REASONS
    return found.reason


def uid2(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# -- e-mail -----------------------------------------------------------------------------------------------------------

# UID2, "Normalization and Encoding": as written, in its form, and what it is hashed to.
UID2 = (
    ("JANE.SAOIRSE@gmail.com", "janesaoirse@gmail.com", "ku4mBX7Z3qJTXWyLFB1INzkyR2WZGW4ANSJUiW21iI8="),
    ("JaneSaoirse+Work@gmail.com", "janesaoirse@gmail.com", "ku4mBX7Z3qJTXWyLFB1INzkyR2WZGW4ANSJUiW21iI8="),
    ("JaneSaoirse+Work@example.com", "janesaoirse+work@example.com", "KKruSBUjDNO069iMUVImVQZm6RrAGZKeOtrD9mwogYA="),
)


@pytest.mark.parametrize(("written", "form", "hashed"), UID2, ids=[row[0] for row in UID2])
def test_the_published_vectors_of_uid2(written, form, hashed):
    assert value("email", written) == form
    assert uid2(value("email", written)) == hashed


EQUAL_EMAILS = (
    (
        "jane@example.com",
        (" jane@example.com ", "JANE@EXAMPLE.COM", "\tjane@example.com\r\n", "jane@example.com\u00a0"),
    ),
    ("janedoe@gmail.com", ("j.a.n.e.doe@GMAIL.com", "JaneDoe+a+b@gmail.com", "jane.doe+.x@gmail.com")),
    ("jos\u00e9@example.com", ("jose\u0301@example.com", "JOSE\u0301@example.com", "JOS\u00c9@EXAMPLE.com")),
    ("a@xn--mnchen-3ya.de", ("a@m\u00fcnchen.de", "a@mu\u0308nchen.de", "A@M\u00dcNCHEN.DE", "a@XN--MNCHEN-3YA.de")),
    ("a@xn--strae-oqa.de", ("a@stra\u00dfe.de", "a@STRA\u1e9eE.de")),
)


@pytest.mark.parametrize(("form", "others"), EQUAL_EMAILS, ids=[row[0] for row in EQUAL_EMAILS])
def test_one_address_in_several_spellings_has_one_form(form, others):
    assert {value("email", text) for text in (form, *others)} == {form}


APART = (
    ("jane.doe@example.com", "janedoe@example.com"),
    ("jane+a@example.com", "jane@example.com"),
    ("jane@googlemail.com", "jane@gmail.com"),
    ("j.ane@googlemail.com", "jane@googlemail.com"),
    ("jane.doe@mail.gmail.com", "janedoe@mail.gmail.com"),
    ("jane@stra\u00dfe.de", "jane@strasse.de"),  # two domains since IDNA 2008 (RFC 5894, section 7.2)
    ("jose@example.com", "jos\u00e9@example.com"),
)


@pytest.mark.parametrize(("one", "other"), APART, ids=[row[0] for row in APART])
def test_addresses_that_may_be_two_persons_stay_apart(one, other):
    assert value("email", one) != value("email", other)


@pytest.mark.parametrize(
    "text",
    [
        "jane",
        "jane@",
        "@example.com",
        "jane@example",
        "jane@@example.com",
        "ja ne@example.com",
        "jane@exa mple.com",
        "jane@example.com, joe@example.com",
        "jane@example.com;joe@example.com",
        "Jane <jane@example.com>",
        "mailto:jane@example.com",
        '"jane doe"@example.com',
        "jane(home)@example.com",
        ".jane@example.com",
        "jane.@example.com",
        "ja..ne@example.com",
        "jane@.example.com",
        "jane@example.com.",
        "jane@example..com",
        "jane@-example.com",
        "jane@example-.com",
        "jane@exa_mple.com",
        "jane@192.0.2.1",
        "jane@[192.0.2.1]",
        "+work@gmail.com",
        "jane\uff20example.com",
        "jane@\uff45xample.com",
        "jane@example\u3002com",
        "jane@\u0301x.com",
        "jane@xn--abc.com",
        "jane@xn--.com",
        "jane@xn--mnchen-3ya-.de",
        "jane@xn--99999999999.com",
        "jane@xn--" + "\u00dcbung".encode("punycode").decode() + ".de",  # a capital, which an A-label has not
        "jane@" + "a" * 64 + ".com",
        "j" * 65 + "@example.com",
        "\u00e9" * 33 + "@example.com",
        "jane@" + "\u00fc" * 80 + ".de",
        "n/a",
        "-",
    ],
)
def test_what_is_not_one_address_is_rejected(text):
    assert reason("email", text) == "not-an-address"


LABELS = (
    "b\u00fccher",
    "\u03b1\u03b2\u03b3",
    "\u0440\u0444",
    "\u4f8b\u3048",
    "\ud55c\uad6d",
    "fa\u00df",
    "\u00e9-1",
    "ma\u00f1ana",
    "\u03bf\u03c2",
    "\u0939\u093f",
)


@pytest.mark.parametrize("label", LABELS)
def test_domains_are_on_the_wire_as_another_library_has_them(label):
    wire = idna.encode(label).decode()
    assert value("email", f"a@{label}.com") == value("email", f"a@{wire}.com") == f"a@{wire}.com"


@settings(max_examples=300, deadline=None)
@given(label=st.text(st.characters(codec="utf-8", categories=("L", "M", "N")), min_size=1, max_size=12))
def test_no_domain_that_idna_takes_gets_another_form(label):
    label = unicodedata.normalize("NFC", label.lower())
    try:
        wire = idna.encode(label).decode()
    except idna.IDNAError:
        return
    found = canonical("email", f"a@{label}.example")
    assert found.reason or found.value == f"a@{wire}.example".lower()


# -- telephone --------------------------------------------------------------------------------------------------------


def test_the_published_hash_of_a_telephone_number_of_uid2():
    assert uid2(value("phone", "+12345678901")) == "EObwtHBUqDNZR33LNSMdtt5cafsYFuGmuY4ZLenlue4="
    assert value("phone", "1 (234) 567-8901", region="US") == "+12345678901", "UID2: United States, 1 (234) 567-8901"


EQUAL_PHONES = (
    (
        "+16502530000",
        "US",
        ("(650) 253-0000", "650.253.0000", "1 650 253 0000", "+1 650-253-0000", "6502530000"),
    ),
    (
        "+4930901820",
        "DE",
        ("030 901820", "030/901820", "030/90 18 20", "0049 30 901820", "+49 (0)30 901820", "(030) 901820"),
    ),
    (
        "+33612345678",
        "FR",
        ("06 12 34 56 78", "06\u00a012\u202f34 56 78", "+33\u00a06 12345678", "06\u201112\u201134\u201156\u201178"),
    ),
    ("+390669812345", "IT", ("06 698 12345", "+39 06 69812345")),
    (
        "+16502530000",
        None,
        ("+1 (650) 253 0000", "\uff0b\uff11 650 253 0000", "+\u0661 650 253 0000", " +16502530000\n"),
    ),
)


@pytest.mark.parametrize(("form", "region", "texts"), EQUAL_PHONES, ids=[f"{row[0]} {row[1]}" for row in EQUAL_PHONES])
def test_one_number_in_several_spellings_has_one_form(form, region, texts):
    assert {value("phone", text, region=region) for text in texts} == {form}


@pytest.mark.parametrize(
    "extension", [" ext. 12", " x12", "x12", " ext 12", ", ext. 12", ";ext=12", " #12", " extension 12", " EXT 12"]
)
def test_an_extension_is_dropped(extension):
    assert value("phone", f"(650) 253-0000{extension}", region="US") == "+16502530000"
    assert value("phone", f"+1 650 253 0000{extension}") == "+16502530000"


@pytest.mark.parametrize(
    "text",
    [
        "1-800-FLOWERS",
        "tel:+16502530000",
        "home: 650 253 0000",
        "650 253 0000 or 650 253 0001",
        "650 253 0000, 650 253 0001",
        "650 253 0000;650 253 0001",
        "650 253 0000/01",
        "++16502530000",
        "+",
        "+1 650 253 0000 ext.",
        "6502530000@example.com",
        "1" * 41,
        "1" * LONGEST,
        "()",
        "n/a",
        "-",
    ],
)
def test_what_is_not_written_as_one_number_is_rejected(text):
    assert reason("phone", text, region="US") == "not-a-number"


@pytest.mark.parametrize(
    ("text", "region"),
    [("65 1243 5678", "SG"), ("555-0100", "US"), ("+15550100", None), ("+1 650 253 000", None), ("+999 1234567", None)],
)
def test_a_number_that_nobody_is_given_is_rejected_though_some_are_possible(text, region):
    assert reason("phone", text, region=region) in ("not-valid", "not-a-number")
    assert value("phone", "+16502530000", region=region) == "+16502530000"


def test_what_is_only_possible_is_not_valid():
    number = phonenumbers.parse("555-0100", "US")
    assert phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.INVALID_LENGTH
    assert reason("phone", "555-0100", region="US") == reason("phone", "65 1243 5678", region="SG") == "not-valid"


def test_a_national_number_needs_a_region():
    assert reason("phone", "030 901820") == "no-region"
    assert reason("phone", "0049 30 901820") == "no-region"
    assert value("phone", "+49 30 901820") == "+4930901820"


@pytest.mark.parametrize("region", ["", "us", "XX", "USA", "ZZ"])
def test_a_region_that_is_not_one_is_refused(region):
    with pytest.raises(MatchFault, match="two capital letters"):
        canonical("phone", "+16502530000", region=region)


def test_every_countrys_example_number_comes_back_from_every_way_to_write_it():
    """An oracle of the library's own: numbers that it gives as examples, as it formats them."""
    formats = (
        phonenumbers.PhoneNumberFormat.NATIONAL,
        phonenumbers.PhoneNumberFormat.INTERNATIONAL,
        phonenumbers.PhoneNumberFormat.E164,
    )
    tried = 0
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        number = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
        if number is None:
            continue
        expected = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        for kind in formats:
            assert value("phone", phonenumbers.format_number(number, kind), region=region) == expected
            tried += 1
    assert tried > 600


# -- loyalty ----------------------------------------------------------------------------------------------------------

EQUAL_CARDS = (
    ("6335123456789010", ("6335 1234 5678 9010", "6335-1234-5678-9010", " 6335123456789010 ")),
    ("00123456", ("0012 3456", "00-12-34-56")),
    ("CLUB-\u00e91", ("CLUB-e\u03011", "\tCLUB-\u00e91\n")),
)


@pytest.mark.parametrize(("form", "others"), EQUAL_CARDS, ids=[row[0] for row in EQUAL_CARDS])
def test_one_card_in_several_spellings_has_one_form(form, others):
    assert {value("loyalty", text) for text in (form, *others)} == {form}


@pytest.mark.parametrize(
    "text",
    [
        "AB-12",  # letters
        "Ab12",  # case
        "1-23",  # too short for a card
        "1234 567",
        "1234 5678 9012 3456 7890",  # too long for one
        "1234  5678",  # two spaces
        "1234 -5678",
        "-12345678",
        "12345678-",
        "0012345678",  # leading zeros
        "\u0661\u0662\u0663\u0664 \u0665\u0666\u0667\u0668",  # digits that are not ASCII
        "x",
    ],
)
def test_an_identifier_that_is_no_cards_number_stays_as_it_is(text):
    assert value("loyalty", text) == text


# -- all kinds --------------------------------------------------------------------------------------------------------

GOOD = {"email": "jane@example.com", "phone": "+16502530000", "loyalty": "A1"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [None, "", "   ", "\t\r\n", "\u00a0\u3000"])
def test_no_text_is_empty(kind, text):
    assert reason(kind, text) == "empty"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "character",
    [
        "\x00",
        "\x1f",
        "\x7f",
        "\x85",
        "\u200b",
        "\u200d",
        "\u00ad",
        "\ufeff",
        "\u202e",
        "\ud800",
        "\ue000",
        "\U000e0001",
    ],
)
def test_a_hidden_character_anywhere_is_rejected(kind, character):
    good = GOOD[kind]
    for text in (character + good, good + character, good[:1] + character + good[1:]):
        assert reason(kind, text) == "hidden-characters"


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_is_too_long_is_rejected(kind):
    assert reason(kind, "a" * (LONGEST + 1)) == "too-long"
    assert reason(kind, "1" * 300) == "too-long"
    assert reason(kind, "1" * 10_000_000) == "too-long"
    assert canonical(kind, " " * 300 + GOOD[kind]).value == GOOD[kind], "white space around it is not counted"


def test_the_longest_texts_are_taken():
    domain = ".".join(["d" * 60] * 3) + ".example"
    longest = "j" * (LONGEST - 1 - len(domain)) + "@" + domain
    assert value("email", longest) == longest
    assert reason("email", "j" + longest) == "too-long"
    wide = "\u00e9" * 30 + "@" + domain  # as many bytes as the limit has, and more
    assert reason("email", "\u00e9" * 4 + wide) == "not-an-address"
    assert value("loyalty", "c" * LONGEST) == "c" * LONGEST


MESSY = st.text(st.characters(exclude_categories=()), max_size=40)
ADDRESSES = st.builds("{}@{}.{}".format, MESSY, MESSY, st.sampled_from(["com", "M\u00dcNCHEN", "de\u0301"]))
NUMBERS = st.text(st.sampled_from("0123456789 +-()./x#\uff0b\u0661"), max_size=24)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(text=MESSY | ADDRESSES | NUMBERS | st.emails())
@example(text="\u0130@X.org")
@example(text="\u03a3@\u03a3\u0391\u03a3.gr")
@example(text="+49 (0)30 901820/21")
def test_a_form_is_its_own_form_and_nothing_else_happens(kind, text):
    found = canonical(kind, text, region="DE" if kind == "phone" else None)
    assert (found.value is None) == (found.reason in REASONS)
    assert (found.value is not None) == (found.reason == "")
    if found.value is not None:
        assert canonical(kind, found.value) == found
        assert unicodedata.normalize("NFC", found.value) == found.value
        assert len(item(kind, found.value)) <= len(item(kind, "")) + 4 * LONGEST


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(text=st.emails() | st.text("e\u0301\u00e9a1@.c", max_size=20))
def test_the_composed_and_the_decomposed_text_have_one_form(kind, text):
    assert canonical(kind, unicodedata.normalize("NFC", text)) == canonical(kind, unicodedata.normalize("NFD", text))


def test_no_value_is_in_what_is_printed_of_a_form():
    assert "jane" not in repr(canonical("email", "jane@example.com"))
    assert canonical("email", "jane@example.com") == Canonical("jane@example.com", "")


def test_equal_texts_of_two_kinds_are_two_items():
    assert len({item(kind, "12345678") for kind in KINDS}) == len(KINDS)


@given(st.tuples(st.sampled_from(KINDS), st.text(max_size=9)), st.tuples(st.sampled_from(KINDS), st.text(max_size=9)))
def test_items_are_equal_for_nothing_but_equal_identifiers(one, other):
    if not any("\ud800" <= character <= "\udfff" for character in one[1] + other[1]):
        assert (item(*one) == item(*other)) == (one == other)


def test_an_item_of_what_is_no_form_is_refused_without_it():
    with pytest.raises(MatchFault, match="must be a canonical form") as caught:
        item("email", "jane\ud800")
    assert "jane" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("call", [rules_version, lambda kind: canonical(kind, "x"), lambda kind: item(kind, "x")])
@pytest.mark.parametrize("kind", ["", "Email", "name", "email "])
def test_another_kind_is_refused(call, kind):
    with pytest.raises(MatchFault, match="one of email, phone, loyalty"):
        call(kind)


@pytest.mark.parametrize("kind", ["email", "loyalty"])
def test_only_telephone_numbers_have_a_region(kind):
    with pytest.raises(MatchFault, match="telephone numbers alone"):
        canonical(kind, GOOD[kind], region="US")


def test_the_version_of_the_rules_names_the_librarys_metadata(monkeypatch):
    assert rules_version("email") == rules_version("loyalty") == RULES == "1"
    assert rules_version("phone") == f"1+phonenumbers-{phonenumbers.__version__}"
    monkeypatch.setattr(phonenumbers, "__version__", "8.0.0")
    assert rules_version("phone") == "1+phonenumbers-8.0.0"
    assert phones.metadata_version() == "8.0.0"


def test_the_rules_load_no_library_until_a_telephone_number_comes():
    code = (
        "import sys; from coterie.privacy.matching.identifiers import canonical; canonical('email', 'a@b.c');"
        "print(*sorted({'torch', 'phonenumbers', 'flwr', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
