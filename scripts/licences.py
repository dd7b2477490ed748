"""Writes docs/reference/licences.md: the licence of every package that an install of Backline brings.

They are taken from the packages' own metadata, in the environment that runs this (``scripts/sbom`` does). A licence
that is not in ``ALLOWED`` fails: somebody has to look at it first.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "licences.md"
EXTRAS = ("env", "flask-bridge", "otel", "parity")
# These bring libraries of models, which the server never loads.
MODEL_EXTRAS = ("catboost", "keras", "lightgbm", "onnx", "sklearn", "torch", "xgboost")
# Ours is Apache-2.0. All of these allow to use the package unchanged beside it; MPL-2.0 asks for no more than that.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MPL-2.0",
    "PSF-2.0",
    "Unlicense",
    "Zlib",
}
# What old metadata says in words.
_WORDS = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mit": "MIT",
    "python software foundation license": "PSF-2.0",
}


def licence_of(package: metadata.Distribution) -> str:
    """Return the licence as an SPDX expression, or the words that the package has for it."""
    fields = package.metadata
    expression = fields.get("License-Expression")
    if expression:
        return str(expression)
    said = [line.rpartition(" :: ")[2] for line in fields.get_all("Classifier") or () if line.startswith("License ::")]
    said = [words for words in said if words != "OSI Approved"] or [(fields.get("License") or "not said").strip()]
    return " OR ".join(dict.fromkeys(_WORDS.get(words.lower(), words) for words in said))


def is_allowed(expression: str) -> bool:
    """Whether every part of an SPDX expression joined by AND, and one of those joined by OR, is allowed."""
    parts = re.sub(r"[()]", "", expression)
    return any(all(part.strip() in ALLOWED for part in way.split(" AND ")) for way in parts.split(" OR "))


def brought_by(requirement: Requirement, found: dict[str, metadata.Distribution]) -> None:
    """Add what a requirement brings to ``found``, by name."""
    name = canonicalize_name(requirement.name)
    package = metadata.distribution(name)
    extras = requirement.extras or {""}
    known = name in found
    found[name] = package
    for line in package.requires or ():
        wanted = Requirement(line)
        applies = wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras)
        if applies and (not known or requirement.extras) and canonicalize_name(wanted.name) not in found:
            brought_by(wanted, found)


def packages() -> list[tuple[str, str, str, str]]:
    """Return name, version, licence, and the extra (or nothing) of each package."""
    rows: dict[str, tuple[str, str, str, str]] = {}
    for extra in ("", *EXTRAS):
        found: dict[str, metadata.Distribution] = {}
        brought_by(Requirement(f"backline[{extra}]" if extra else "backline"), found)
        for name, package in found.items():
            if name != "backline":
                rows.setdefault(name, (name, package.version, licence_of(package), extra))
    return sorted(rows.values())


def render() -> str:
    """Return the page."""
    lines = [
        "# Licences",
        "",
        "Written by `scripts/sbom` from the packages' own metadata, at the versions of the lock.",
        "Backline itself is under Apache-2.0.",
        "A package under a licence that is not on the list in `scripts/licences.py` fails the tests.",
        "`scripts/sbom` also makes the bills of materials of the default install and of one with all extras.",
        "",
        "| package | version | licence | extra |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {name} | {version} | {licence} | {extra} |" for name, version, licence, extra in packages()]
    return "\n".join(lines) + "\n"


def main() -> int:
    refused = [f"{name} {version}: {licence}" for name, version, licence, _ in packages() if not is_allowed(licence)]
    if refused:
        print("error: not on the list of licences in scripts/licences.py:", *refused, sep="\n  ", file=sys.stderr)
        return 1
    PAGE.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
