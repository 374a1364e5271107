"""Keys in the environment: the suite of every source, the format, and who must act."""

import base64

import pytest

from coterie.privacy.fields.keysource import unwrap_key
from coterie.privacy.fields.sources.environment import EnvironmentKeys
from coterie.tests.privacy.fields.sourcesuite import CONTEXTS, SourceContract, fresh, newer, refused

NAME = "COTERIE_KEYS"
ONE, TWO = (base64.b64encode(bytes([fill]) * 32).decode() for fill in (1, 2))


class Rig:
    kind, ours = "environment", False

    def __init__(self) -> None:
        self.keys = {"2026-a": base64.b64encode(fresh(1)[0]).decode()}
        self.environment = {}
        self.put()

    def put(self):
        self.environment[NAME] = ",".join(f"{name}:{key}" for name, key in self.keys.items())

    def source(self):
        return EnvironmentKeys(NAME, self.environment)

    def add(self):
        name = f"2026-{chr(ord('a') + len(self.secrets))}.{len(list(self.keys))}"
        self.keys[name] = base64.b64encode(fresh(1)[0]).decode()
        self.secrets_seen = self.secrets
        self.put()
        return name

    def remove(self, epoch):
        self.secrets_seen = self.secrets
        self.keys.pop(epoch, None)
        self.put()

    secrets_seen = ()

    @property
    def secrets(self):
        return [*self.secrets_seen, *(key for key in self.keys.values() if key not in self.secrets_seen)]

    def faults(self):
        def twice():
            self.keys["again"] = self.keys["2026-a"]
            self.put()
            self.source().epochs()

        def cut():
            self.keys["again"] = self.keys["2026-a"][:-4]
            self.put()
            self.source().epochs()

        return [twice, cut]


class TestEnvironment(SourceContract):
    @pytest.fixture
    def rig(self):
        return Rig()


def held(text):
    return EnvironmentKeys(NAME, {NAME: text})


def test_keys_are_read_oldest_first_and_wrap_under_the_last():
    source = held(f" old:{ONE} ,\n new:{TWO}\n")
    assert source.epochs() == ("old", "new")
    (key,) = fresh(1)
    (wrapped,) = source.wrap([key], CONTEXTS[:1])
    assert unwrap_key(bytes([2]) * 32, wrapped, CONTEXTS[0]) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        ONE,
        f":{ONE}",
        f"a:{ONE},",
        f",a:{ONE}",
        f"a:{ONE};b:{TWO}",
        f"a:{ONE[:-4]}",
        f"a:{ONE}AAAA",
        f"a:{ONE[:-2]}F=",  # other spare bits: a second spelling of the same key
        f"a:{ONE[:20]} {ONE[20:]}",
        f"a:{ONE[:-1]}",
        f"a:{'!' * 44}",
        f"a:{'é' * 44}",
        f"a b:{ONE}",
        f"../a:{ONE}",
        f"-a:{ONE}",
        f"{'a' * 41}:{ONE}",
        f"ä:{ONE}",
        f"a:{ONE},a:{TWO}",
        f"a:{ONE},b:{ONE}",
    ],
)
def test_another_form_is_refused_and_not_shown(text):
    fault = str(refused(lambda: held(text).epochs()))
    assert NAME in fault
    assert ONE[:20] not in fault


def test_a_variable_that_is_not_set_is_named():
    assert NAME in refused(lambda: EnvironmentKeys(NAME, {}).epochs()).faults[0].place


def test_who_wants_a_new_key_is_told_to_add_one_where_the_variable_is_set():
    fault = refused(lambda: held(f"a:{ONE}").advance("a")).faults[0]
    assert NAME in fault.place
    assert "add" in fault.fix


def test_who_wants_an_old_key_destroyed_is_told_to_remove_it_where_the_variable_is_set():
    rig = Rig()
    source = rig.source()
    new = newer(rig, source)
    fault = refused(lambda: source.destroy("2026-a")).faults[0]
    assert "remove 2026-a" in fault.fix
    rig.remove("2026-a")
    source.destroy("2026-a")
    assert source.epochs() == (new,)
