"""Ten thousand damages to a vault's files: each is told, or changes no row; none is anything else."""

import collections
import json
import random
import shutil

import pytest

from coterie.clients import sealing, vault
from coterie.clients.checkup import check_vault
from coterie.clients.tables.table import whole
from coterie.clients.vault import CUSTOMERS, Vault
from coterie.clients.workspace import Workspace
from coterie.privacy.errors import FileFault
from coterie.privacy.fields import manifest as manifests
from coterie.privacy.fields.errors import KeyFault, SealFault
from coterie.privacy.fields.manifest import Manifest
from coterie.tests.stories.vaultkit import opened, put, restore, same, small_vault, tables, tree, without

OLD = tables(12)
NEW = OLD | {CUSTOMERS: without(OLD[CUSTOMERS], "customer-0003")}
TOLD = (KeyFault, SealFault, FileFault)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A vault whose keys lie on a mount, and its files of before its customers were sealed a second time."""
    return built(tmp_path_factory.mktemp("mutations"))


def built(root):
    """Make it in a folder."""
    root.mkdir(exist_ok=True)
    made = small_vault(root / "bank", keys=root / "mounted", sealed=OLD)
    shutil.copytree(made.vault, root / "earlier")
    with opened(made) as lent:
        put(lent, CUSTOMERS, NEW[CUSTOMERS])
    return root


class Mutator:
    """Damages files of a vault; the same seed does the same."""

    def __init__(self, site, seed):
        self.rng, self.site, self.bank = random.Random(seed), site, Workspace(site / "bank")  # noqa: S311 - no secret

    def files(self, kind):
        return {
            "stream": sorted(self.bank.vault.glob("*/streams/*")),
            "manifest": sorted(self.bank.vault.glob("*/manifests/*")),
            "earlier": sorted(path for path in (self.site / "earlier").rglob("*") if path.is_file()),
            "key": sorted((self.site / "mounted").iterdir()),
            "small": [self.bank.root / "keys" / "groups.key", self.bank.root / "keys" / "identity.pem"],
            "settings": [self.bank.root / "coterie.toml"],
        }[kind]

    def mutate(self):
        """Damage something; return which kind of file, and how."""
        kinds = ("stream", "manifest", "key", "small", "settings")
        kind = self.rng.choices(kinds, (10, 8, 2, 1, 2))[0]
        ways = [self.flip, self.cut, self.append, self.zero, self.scramble, self.lose, self.exchange, self.rename]
        ways += {"manifest": [self.edit] * 6 + [self.older] * 2, "settings": [self.reset] * 4}.get(kind, [])
        ways += [self.older, self.replace] if kind == "stream" else []
        way = self.rng.choice(ways)
        way(self.rng.choice(self.files(kind)))
        return kind, way.__name__

    def flip(self, path):
        data = bytearray(path.read_bytes())
        for _ in range(self.rng.choice((1, 1, 1, 2, 8))):
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        path.write_bytes(data)

    def cut(self, path):
        data = path.read_bytes()
        path.write_bytes(data[: self.rng.randrange(len(data))])

    def append(self, path):
        data, more = path.read_bytes(), self.rng.randbytes(self.rng.choice((1, 16, 17, 4096)))
        path.write_bytes(self.rng.choice((data + more, more + data, data + data, data + b"\n")))

    def zero(self, path):
        data = bytearray(path.read_bytes())
        start = self.rng.randrange(len(data))
        end = self.rng.randint(start + 1, len(data))
        data[start:end] = bytes(end - start)
        path.write_bytes(data)

    def scramble(self, path):
        data = bytearray(path.read_bytes())
        start = self.rng.randrange(len(data))
        end = self.rng.randint(start, min(len(data), start + 40))
        data[start:end] = self.rng.randbytes(self.rng.randrange(40))
        path.write_bytes(data)

    def lose(self, path):
        path.unlink()

    def rename(self, path):
        path.rename(path.with_name(self.rng.choice((path.name + ".new", path.name.upper() + "x", "0" * 32, "0" * 64))))

    def exchange(self, path):
        other = self.rng.choice(self.files(self.rng.choice(("stream", "manifest"))))
        data = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)

    def replace(self, path):
        """Another stream, also of a lost version, takes the place of this one."""
        path.write_bytes(self.rng.choice(self.files("stream") + self.files("earlier")).read_bytes())

    def older(self, path):
        """The files of an earlier version come back, and one of their manifests stands where the ledger points to."""
        shutil.copytree(self.site / "earlier", self.bank.vault, dirs_exist_ok=True)
        dataset = path.parent.parent.name
        older = sorted((self.site / "earlier" / dataset / "manifests").iterdir())[0]
        for named in (self.bank.vault / dataset / "manifests").iterdir():
            if self.rng.random() < 0.7:
                named.write_bytes(older.read_bytes())

    def edit(self, path):
        """Change one field of a manifest, spelled as a manifest is."""
        table = json.loads(path.read_bytes())
        streams = table["streams"]
        one, other = self.rng.randrange(len(streams)), self.rng.randrange(len(streams))
        match self.rng.choice(("field", "stream", "swap", "files", "drop", "double", "add", "lack")):
            case "field":
                name = self.rng.choice([name for name in table if name != "streams"])
                table[name] = self.odd(table[name])
            case "stream":
                name = self.rng.choice(list(streams[one]))
                streams[one][name] = self.odd(streams[one][name])
            case "swap":
                streams[one], streams[other] = streams[other], streams[one]
            case "files":
                name = self.rng.choice(("file", "key", "sha256"))
                streams[one][name], streams[other][name] = streams[other][name], streams[one][name]
            case "drop":
                del streams[one]
            case "double":
                streams.append(streams[one])
            case "add":
                table[self.rng.choice(("more", "Version", ""))] = 1
            case "lack":
                del table[self.rng.choice(list(table))]
        path.write_bytes(json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())

    def odd(self, value):
        if isinstance(value, int):
            return self.rng.choice((value + 1, value - 1, 0, -1, 2**53, float(value), str(value), None, True, 10**30))
        if isinstance(value, str):
            place = self.rng.randrange(len(value) + 1)
            text = self.rng.choice("0aF=+/ \u0301")
            return self.rng.choice((value[:place] + text + value[place:], value[:place], value.swapcase(), "", None, 7))
        return None

    def reset(self, path):
        """Change where keys come from, as far as it still is TOML."""
        lines = path.read_text().splitlines()
        name, value = self.rng.choice(
            [
                ("source", "file"),
                ("source", "passphrase"),
                ("source", "environment"),
                ("source", "transit"),
                ("source", ""),
                ("path", "keys/vault"),
                ("path", str(self.site)),
                ("path", ""),
                ("path", "/nowhere"),
                ("variable", "PATH"),
                ("address", "https://localhost:1"),
                ("name", "another bank"),
                ("name", ""),
                ("[keys]", ""),
            ]
        )
        kept = [line for line in lines if not line.startswith(name)]
        place = kept.index("[keys]") + 1 if "[keys]" in kept and name != "name" else 0
        if name != "[keys]" and self.rng.random() < 0.8:
            kept.insert(place, f"{name} = {json.dumps(value)}")
        path.write_text("\n".join(kept))


def outcome(site, number):
    """What reading everything comes to: "same", the name of the fault, or what is wrong."""
    try:
        with opened(site / "bank") as lent:
            tables_ = {name: lent.table(name) for name in OLD}
            found = {name: whole(table, table.schema.names) for name, table in tables_.items()}
            if number % 10 == 0:
                check_vault(lent)
    except TOLD as fault:
        return type(fault).__name__
    except Exception as error:  # noqa: BLE001 - whatever else is raised is what is looked for
        return f"WRONG: {type(error).__name__}: {error}"
    return "same" if same(found, NEW) else "WRONG: other rows"


def mutated(site, count, seed):
    """Count the outcomes of so many damages, each of a whole vault."""
    mutator, found, before = Mutator(site, seed), collections.Counter(), tree(site)
    for number in range(count):
        kind, way = mutator.mutate()
        after = tree(site)
        told = outcome(site, number) if after != before else "nothing done"
        # Of what holds rows, nothing may change without a word; other files have words that say nothing of rows.
        if told == "same" and kind in ("stream", "manifest", "key") and needed(before, after):
            told = f"WRONG: not noticed: {kind}, {way}"
        found[told if "WRONG" in told else f"{kind}: {told}"] += 1
        restore(site, before)
    assert outcome(site, 0) == "same"
    return found


def needed(before, after):
    """Whether a file that was there is gone or another, not only more are there."""
    return any(after.get(name) != held for name, held in before.items() if not name.startswith("earlier"))


def wrong(found):
    return {told: count for told, count in found.items() if "WRONG" in told}


FAST = [pytest.param(500, seed, id=f"500 of seed {seed}") for seed in (1, 2)]
SLOW = [
    pytest.param(2000, seed, marks=pytest.mark.slow, id=f"2000 of seed {seed}") for seed in (11, 12, 13, 14, 15, 16)
]


@pytest.mark.parametrize(("count", "seed"), FAST + SLOW)
def test_no_damage_is_silent_or_surprising(site, tmp_path, count, seed):
    here = shutil.copytree(site, tmp_path / "site")
    settings = here / "bank" / "coterie.toml"
    settings.write_text(settings.read_text().replace(str(site / "mounted"), str(here / "mounted")))
    found = mutated(here, count, seed)
    print(count, "damages:", dict(sorted(found.items())))  # noqa: T201 - shown by -rP and where it fails
    assert wrong(found) == {}
    assert sum(n for told, n in found.items() if told.endswith("Fault")) > 0.8 * count
    assert {"stream: SealFault", "manifest: SealFault", "key: KeyFault", "settings: FileFault"} <= found.keys()


def unchecked(self, dataset):
    """`Vault.newest`, but whatever manifest stands there will do."""
    named = self._named(dataset)
    if named is None:
        return None
    path = self._manifests(dataset) / named["manifest"].removeprefix("sha256:")
    return Manifest.from_bytes(path.read_bytes(), self.whose(dataset), place=str(path))


def test_a_vault_that_did_not_ask_the_ledger_would_be_found_out(site, tmp_path, monkeypatch):
    monkeypatch.setattr(Vault, "newest", unchecked)
    found = mutated(built(tmp_path / "site"), 150, 3)
    assert "WRONG: other rows" in wrong(found)


def test_a_vault_that_bound_nothing_to_its_place_would_be_found_out(tmp_path, monkeypatch):
    for module, name in ((sealing, "column_context"), (sealing, "key_context"), (vault, "key_context")):
        monkeypatch.setattr(module, name, lambda *_: b"anything")
    monkeypatch.setattr("coterie.clients.sealedtable.column_context", lambda *_: b"anything")
    monkeypatch.setattr(manifests, "verify", lambda *_: None)
    monkeypatch.setattr(Vault, "newest", unchecked)
    found = mutated(built(tmp_path / "site"), 150, 3)
    assert "WRONG: other rows" in wrong(found) or any("not noticed" in told for told in wrong(found))
