"""Requirements are read by line, and held against versions by their release."""

from __future__ import annotations

from pathlib import Path

import pytest

from backline.trial.versions import meets, normalised, numbers, requirements_of


@pytest.mark.parametrize(
    ("version", "wanted", "met"),
    [
        ("1.4.2", "", True),
        ("1.4.2", "==1.4.2", True),
        ("1.4.2", "==1.4.1", False),
        ("1.4", "==1.4.0", True),
        ("1.4.2", "==1.4.*", True),
        ("1.40", "==1.4.*", False),
        ("1.4.2", ">=1.4,<1.5", True),
        ("1.5.0", ">=1.4,<1.5", False),
        ("1.4.9", "~=1.4.2", True),
        ("1.5.0", "~=1.4.2", False),
        ("2.1.0+cpu", "==2.1.0", True),
        ("2.1.0", "!=2.1.0", False),
        ("2.1.0", ">2.0", True),
        ("2.1.0", "<=2.0", False),
        ("2.1.0", "@ https://somewhere", None),
    ],
)
def test_a_version_meets_what_is_wanted_or_does_not(version: str, wanted: str, met: bool | None) -> None:
    assert meets(version, wanted) is met


def test_a_requirements_file_is_read_and_what_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(
        "# packages\npandas[parquet]>=2,<3  # tables\nscikit_learn==1.4.2 \\\n    --hash=sha256:00\n"
        "tomli; python_version < '3.11'\n-r other.txt\ngit+https://example.org/x\n"
    )
    found, others = requirements_of(path)
    assert [(each.name, each.wanted, each.line, each.conditional) for each in found] == [
        ("pandas", ">=2,<3", 2, False),
        ("scikit_learn", "==1.4.2", 3, False),
        ("tomli", "", 5, True),
    ]
    assert others == ["requirements.txt:6: -r other.txt", "requirements.txt:7: git+https://example.org/x"]


def test_names_and_releases_are_compared_in_one_form() -> None:
    assert normalised("Scikit_Learn") == "scikit-learn"
    assert (numbers("1.4.2rc1+cpu"), numbers("v2"), numbers("unknown")) == ((1, 4, 2), (2,), ())
