"""Study files: the plan is what is signed, and the source is not."""

import tomllib

from coterie.privacy.plan import Plan
from coterie.privacy.study import read_study


def replaced(text, old, new):
    assert text.count(old) == 1
    return text.replace(old, new)


def test_the_source_of_a_simulation_is_no_part_of_the_digest(study_text, study_file):
    bare = read_study(study_file(study_text))
    sourced = read_study(study_file(study_text + '\n[source]\ndataset = "adult"\nfallback = "synthetic"\n'))
    assert bare.source is None
    assert (sourced.source.dataset, sourced.source.fallback) == ("adult", "synthetic")
    assert sourced.plan == bare.plan
    assert sourced.plan.digest() == bare.plan.digest()
    assert type(sourced.plan) is Plan


def test_the_digest_does_not_depend_on_how_the_file_is_laid_out(study_text, study_file):
    table = tomllib.loads(study_text)
    shuffled = "\n".join(reversed(["# a remark", 'name = "spring"', 'purpose = "campaign selection"']))
    other = replaced(replaced(study_text, 'name = "spring"\n', ""), 'purpose = "campaign selection"', shuffled)
    other = replaced(other, "clip = 1.0", "clip = 1")
    assert tomllib.loads(other) == table
    assert read_study(study_file(other)).plan.digest() == read_study(study_file(study_text)).plan.digest()
