"""Audits locks with pip-audit against each advisory service that answers; called by ``scripts/audit``.

A service that cannot be asked must not be taken for one that found nothing: pip-audit prints a table without holes, and
ends with success, where PyPI says that it does not know a package. So every package has to have been audited.
"""

from __future__ import annotations

import json
import subprocess
import sys

SERVICES = ("pypi", "osv")
FOUND, NOT_AUDITED_SECONDS = 1, 600


def audit(lock: str, service: str) -> tuple[list[str], str | None]:
    """Return the holes that the service knows, and why it could not be asked, if it could not."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--requirement", lock]
    command += ["--vulnerability-service", service, "--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=NOT_AUDITED_SECONDS)
    except subprocess.TimeoutExpired:
        return [], "no answer in ten minutes"
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return [], (done.stderr.strip().splitlines() or ["no answer"])[-1][:200]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    holes = [
        f"{package['name']} {package['version']}: {hole['id']} {' '.join(hole['aliases'])}"
        f" (mended in {', '.join(hole['fix_versions']) or 'no version yet'})"
        for package in packages
        for hole in package.get("vulns", ())
    ]
    if skipped or not packages:
        return holes, f"it knows nothing of {len(skipped)} of {len(packages)} packages"
    return holes, None


def main() -> int:
    unreachable, *locks = sys.argv[1:]
    found = 0
    unaudited = []
    for lock in locks:
        asked = 0
        for service in SERVICES:
            holes, why_not = audit(lock, service)
            found += len(holes)
            for hole in holes:
                print(f"{lock}: {hole}")
            if why_not is None:
                asked += 1
                print(f"{lock}: {service} was asked, {len(holes)} holes", file=sys.stderr)
            else:
                print(f"{lock}: {service} could not be asked: {why_not}", file=sys.stderr)
        if not asked:
            unaudited.append(lock)
    if found:
        return FOUND
    if unaudited:
        print(f"not audited: no advisory service reachable ({', '.join(unaudited)})", file=sys.stderr)
        return int(unreachable)
    return 0


if __name__ == "__main__":
    sys.exit(main())
