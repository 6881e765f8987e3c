"""Complete a Python that brings libraries of its own, such as Colab's, with what the course needs.

The first cell of a chapter installs this package alone and then calls ``run``. What is there and
fits stays: another PyTorch or numpy is a download of minutes, and may not suit the machine's
driver or what else it has. What is installed comes in the versions of ``requirements.lock``.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from urllib.request import urlopen

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "transformer-workbook"


def missing(needs: Iterable[str], have: Mapping[str, str]) -> list[Requirement]:
    """Return what is not there, or not in the range that is needed.

    ``needs``: requirements as packages state them. ``have``: version by canonical name.
    """

    def is_there(one: Requirement) -> bool:
        version = have.get(canonicalize_name(one.name))
        return version is not None and one.specifier.contains(version, prereleases=True)

    asked = [Requirement(line) for line in needs]
    asked = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [one for one in asked if not is_there(one)]


def constraints(
    lock: Iterable[str], have: Mapping[str, str], lacking: Iterable[Requirement]
) -> list[str]:
    """Return the lines of the lock that hold for what is to be installed.

    A line for what is there would make pip replace it.
    """
    replaced = {canonicalize_name(one.name) for one in lacking}
    return [
        line
        for line in lock
        if (name := canonicalize_name(line.partition("==")[0])) in replaced or name not in have
    ]


def installed() -> dict[str, str]:
    """Return the version of each installed package, by canonical name."""
    return {
        canonicalize_name(found.name): found.version
        for found in metadata.distributions()
        if found.name
    }


def lock_address() -> str:
    """Return where the lock is that belongs to the installed version of the course."""
    course = metadata.distribution(PACKAGE)
    links = dict(line.split(", ") for line in course.metadata.get_all("Project-URL"))
    source = json.loads(course.read_text("direct_url.json") or "{}")
    commit = source.get("vcs_info", {}).get("commit_id", "HEAD")
    place = links["Repository"].replace("https://github.com/", "https://raw.githubusercontent.com/")
    return f"{place}/{commit}/requirements.lock"


def run(lock: str | None = None) -> None:
    """Install what is missing. ``lock``: a file or an address, the repository's own where None."""
    have = installed()
    lacking = missing(metadata.requires(PACKAGE) or (), have)
    if not lacking:
        return
    lock = lock or lock_address()
    if Path(lock).is_file():
        lines = Path(lock).read_text(encoding="utf-8").splitlines()
    else:
        with urlopen(lock, timeout=60) as answer:
            lines = answer.read().decode("utf-8").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "constraints.txt"
        file.write_text("\n".join(constraints(lines, have, lacking)), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", str(file), *map(str, lacking)], check=True)
    new = [
        f"{name} {version}" for name, version in installed().items() if have.get(name) != version
    ]
    print("Installed:", ", ".join(sorted(new)))
