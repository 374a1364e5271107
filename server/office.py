"""A coordinator's folder on disk.

    coterie.toml    name, address, ports, database, deadlines
    keys/           identity.pem (signs plans, admissions and records), authority.* and server.* (TLS, of the
                    coordinator's own making), public.* (the operator's own certificate, where there is one),
                    superexec.secret (what Flower's parts on this machine show each other)
    books.sqlite    members, plans, rounds, models (unless coterie.toml names another database)
    heads.json      last ledger head of each partner
    superlink/      Flower's own state
    studies/        what is published of each study, by digest
    models/         finished models
    run/, logs/     what the running service keeps

Everything is readable by its owner alone.
"""

import datetime
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.identity import Identity
from coterie.privacy.joining.admission import endpoint
from coterie.privacy.joining.certificates import issue_server, make_authority
from coterie.privacy.schema import integer, number, parse, read, text

__all__ = ["Office", "Settings"]

_FOLDERS = ("keys", "superlink", "studies", "models", "logs", "run")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What coterie.toml of a coordinator says.

    Args:
        name: The coordinator's name, 1 to 60 characters.
        address: "host:port" where partners connect.
        listen: "host:port" where the gateway listens.
        superlink_port: Port of Flower's SuperLink, on loopback alone.
        health_port: Port of health and metrics, on loopback alone.
        database: URL of the books' database; "" for books.sqlite in this folder.
        deadline: Seconds that partners have for one answer.
        approval_days: Days that partners' operators have to approve a plan, and that a request to join stays fresh.
    """

    name: str = field(metadata=text(60))
    address: str = field(metadata=text(300))
    listen: str = field(metadata=text(300))
    superlink_port: int = field(default=39092, metadata=integer(1, 65535))
    health_port: int = field(default=39093, metadata=integer(1, 65535))
    database: str = field(default="", metadata=text(500, least=0))
    deadline: float = field(default=600.0, metadata=number(1, 86400))
    approval_days: int = field(default=14, metadata=integer(1, 365))


@dataclass(frozen=True)
class Office:
    """Where one coordinator keeps everything.

    Args:
        root: The folder.
    """

    root: Path

    @staticmethod
    def create(
        root: Path, *, name: str, address: str, clock: Callable[[], datetime.datetime], listen: str = ""
    ) -> "Office":
        """Make a new office with fresh keys; an existing one is left as it is.

        Args:
            root: A folder that is missing or empty.
            name: The coordinator's name.
            address: "host:port" where partners connect.
            clock: Says the time.
            listen: "host:port" where the gateway listens; "" for the address itself where that is this machine's own
                loopback, and for its port on every interface otherwise.

        Raises:
            FileFault: The folder holds something or cannot be made, or a setting is out of range.
            JoinFault: An address is malformed.
        """
        host, port = endpoint(address)
        table = {"name": name, "address": address, "listen": listen or _listen(host, address, port)}
        settings = parse(Settings, table, place="coordinator")
        endpoint(settings.listen)
        _make_folders(root)
        office = Office(root)
        write_durably(root / "coterie.toml", _toml(settings))
        Identity.create().save(office.identity_file)
        write_durably(office.secret, secrets.token_hex(32).encode())
        authority = make_authority(name, clock())
        write_durably(office.authority_key, authority.key)
        write_durably(office.loopback_authority, authority.certificate)
        served = issue_server(authority, host, clock())
        write_durably(office.loopback_key, served.key)
        write_durably(office.loopback_certificate, served.certificate)
        return office

    @property
    def settings(self) -> Settings:
        """What coterie.toml says.

        Raises:
            FileFault: There is no office here, or a setting breaks its rule.
            JoinFault: An address is malformed.
        """
        path = self.root / "coterie.toml"
        if not path.is_file():
            fix = "make one with: coterie coordinator init FOLDER --name NAME --address HOST:PORT"
            raise FileFault(Fault(str(self.root), "is not a coordinator's folder", fix))
        settings = read(Settings, path)
        endpoint(settings.address)
        endpoint(settings.listen)
        return settings

    @property
    def identity_file(self) -> Path:
        """The file of the signing identity."""
        return self._keys / "identity.pem"

    @property
    def identity(self) -> Identity:
        """The identity that signs plans, admissions and records; partners pin its public half."""
        return Identity.load(self.identity_file)

    @property
    def has_own_certificate(self) -> bool:
        """Whether the gateway shows a certificate that the operator brought."""
        return self.own_certificate.exists()

    @property
    def own_certificate(self) -> Path:
        """Where a certificate that the operator brought is kept."""
        return self._keys / "public.pem"

    @property
    def own_key(self) -> Path:
        """The private key of `own_certificate`."""
        return self._keys / "public.key"

    @property
    def own_authority(self) -> Path:
        """What partners know `own_certificate` by."""
        return self._keys / "public-authority.pem"

    @property
    def certificate(self) -> Path:
        """The certificate that the gateway shows to partners."""
        return self.own_certificate if self.has_own_certificate else self.loopback_certificate

    @property
    def key(self) -> Path:
        """The private key of `certificate`."""
        return self.own_key if self.has_own_certificate else self.loopback_key

    @property
    def authority(self) -> Path:
        """What partners know the gateway by; it goes into admissions."""
        return self.own_authority if self.has_own_certificate else self.loopback_authority

    @property
    def loopback_certificate(self) -> Path:
        """The certificate of the coordinator's own making, for this machine's parts among themselves."""
        return self._keys / "server.pem"

    @property
    def loopback_key(self) -> Path:
        """The private key of `loopback_certificate`."""
        return self._keys / "server.key"

    @property
    def loopback_authority(self) -> Path:
        """The office's own authority."""
        return self._keys / "authority.pem"

    @property
    def authority_key(self) -> Path:
        """The private key of `loopback_authority`; it signs nothing but `loopback_certificate`."""
        return self._keys / "authority.key"

    @property
    def secret(self) -> Path:
        """The file that Flower's parts on this machine show each other."""
        return self._keys / "superexec.secret"

    @property
    def books_url(self) -> str:
        """The database of the books."""
        return self.settings.database or f"sqlite:///{(self.root / 'books.sqlite').absolute()}"

    @property
    def heads(self) -> Path:
        """The last ledger head of each partner."""
        return self.root / "heads.json"

    @property
    def superlink(self) -> Path:
        """The folder of Flower's own state."""
        return self.root / "superlink"

    @property
    def studies(self) -> Path:
        """The folder of what is published of studies."""
        return self.root / "studies"

    def study(self, digest: str) -> Path:
        """Return the folder of the study whose plan has this digest.

        Raises:
            FileFault: It is no digest.
        """
        if not _DIGEST.fullmatch(digest):  # it may be a stranger's word, and must not name any other folder
            raise FileFault(Fault("digest", 'must be "sha256:" and 64 hex digits', "name a study of the books"))
        return self.studies / digest.removeprefix("sha256:")

    @property
    def models(self) -> Path:
        """The folder of finished models."""
        return self.root / "models"

    @property
    def logs(self) -> Path:
        """The folder of the service's logs."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """The folder where the running service's parts find each other."""
        return self.root / "run"

    @property
    def _keys(self) -> Path:
        return self.root / "keys"


def _make_folders(root: Path) -> None:
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise FileFault(Fault(str(root), "is not empty", "choose a new folder"))
        root.chmod(0o700)  # also where it was there, empty, before
        for folder in _FOLDERS:
            (root / folder).mkdir(mode=0o700)
    except OSError as error:
        raise FileFault(Fault(str(root), f"cannot be made ({error.strerror})", "check its parent")) from None


def _listen(host: str, address: str, port: int) -> str:
    # An office that is meant for this machine alone is not offered to the network by leaving an option out.
    return address if host in ("127.0.0.1", "localhost", "::1") else f"0.0.0.0:{port}"


def _toml(settings: Settings) -> bytes:
    """Write the settings, each with a key of its own so that an operator sees what there is."""
    lines = []
    for one in fields(settings):
        # A JSON text is a TOML text, but for DEL, which JSON leaves as it is.
        value = json.dumps(getattr(settings, one.name), ensure_ascii=False).replace("\x7f", "\\u007f")
        lines.append(f"{one.name} = {value}\n")
    return "".join(lines).encode()
