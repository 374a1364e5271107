"""What a column's name gives away, in European languages, and in Hindi and Chinese as databases spell them.

A name is split at signs, capitals and digits; a kind is said when one of its words, or two that stand side by side, are
in the list. A name is a weak sign: it is used beside what a column holds, or to ask a person to look.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable

__all__ = ["says", "special", "suggested"]

_SAYS = {
    "e-mail address": "email mail e_mail correo courriel posta emailaddress youxiang",
    "telephone number, national": (
        "phone telephone tel mobile cell cellphone msisdn fax telefon telefono telefoon handy mobil mobiltelefon "
        "portable movil cellulare gsm shouji dianhua whatsapp"
    ),
    "social security number (US), without hyphens": "ssn social_security",
    "date of birth": (
        "dob birth birthday birthdate birth_date born geburt geburtsdatum geburtstag naissance nascita "
        "data_nascita fecha_nacimiento nacimiento geboortedatum janm shengri"
    ),
    "latitude or longitude": (
        "lat lon lng latitude longitude geo_lat geo_lon breitengrad laengengrad latitud longitud latitudine longitudine"
    ),
    "name of a person": (
        "name firstname first_name lastname last_name surname forename fullname full_name vorname nachname "
        "familienname nom prenom nome cognome nombre apellido apellidos voornaam achternaam naam xingming naam"
    ),
    "postal address": "address street addr strasse anschrift adresse rue via indirizzo direccion calle adres dizhi",
    "account or card": "iban card pan kreditkarte karte kontonummer account_number ccnumber card_number",
    "network or device": (
        "ip ipaddress ip_address cookie cookie_id device_id deviceid idfa gaid aaid imei mac useragent user_agent"
    ),
}
_SPECIAL = {
    "health": (
        "health diagnosis disease disability medication patient icd illness gesundheit krankheit diagnose sante "
        "maladie salute malattia salud enfermedad pregnant pregnancy schwanger allergy"
    ),
    "religion": "religion religious church faith konfession kirche kirchensteuer eglise culto caste",
    "origin": "ethnicity ethnic race racial ethnie herkunft origine etnia raza tribe",
    "politics": "political politics party partei vote voter parti partito",
    "trade union": "union_member trade_union gewerkschaft syndicat sindacato sindicato",
    "sex life": "sexual orientation sexuality sexualitaet",
    "biometry or genes": "biometric fingerprint genetic genome dna",
}
_QUASI = {
    "age": "age alter edad eta leeftijd age_years umar nianling",
    "sex": "sex gender geschlecht sexe sesso sexo geslacht salutation anrede civilite",
    "place": (
        "postcode postal zip zipcode zip_code plz cap cp code_postal codigo_postal city town place ort stadt "
        "ville citta ciudad county district municipality pincode region province state bundesland"
    ),
    "birth": (
        "dob birth birthday birthdate birth_date birth_year yob geburtsdatum geburtsjahr naissance nascita nacimiento"
    ),
    "status": (
        "marital marital_status familienstand children household nationality citizenship occupation profession "
        "job beruf education"
    ),
}
_MOST = 5  # columns that are suggested
_NOT_A_PERSON = {"product", "item", "file", "column", "campaign", "store", "shop", "brand", "model", "host", "company"}


def says(name: str) -> list[str]:
    """Return which kinds of personal data a column's name speaks of."""
    words = _words(name)
    found = [kind for kind, known in _SAYS.items() if words & set(known.split())]
    return [kind for kind in found if kind != "name of a person" or not words & _NOT_A_PERSON]


def special(name: str) -> list[str]:
    """Return which kinds of GDPR article 9 a column's name speaks of."""
    words = _words(name)
    return [kind for kind, known in _SPECIAL.items() if words & set(known.split())]


def suggested(names: Iterable[str]) -> list[str]:
    """Return columns that together may tell a person from all others (quasi-identifiers), five at most."""
    known = {word for words in _QUASI.values() for word in words.split()}
    return [name for name in names if _words(name) & known][:_MOST]


def _words(name: str) -> set[str]:
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", _latin(name))
    parts = [part for part in re.split(r"[^a-z]+", split.lower()) if part]
    pairs = {f"{one}_{two}" for one, two in itertools.pairwise(parts)}
    return {*parts, *pairs, "".join(parts)}


def _latin(name: str) -> str:
    spelled = name.replace("ß", "ss").replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")
    return "".join(sign for sign in unicodedata.normalize("NFKD", spelled) if not unicodedata.combining(sign))
