from __future__ import annotations

from backline.config.reference import render_markdown
from backline.config.settings import OPTIONS


def test_the_page_names_every_setting_with_its_flags_and_variables() -> None:
    page = render_markdown()
    for option in OPTIONS:
        assert f"### {option.dotted}\n" in page
        assert all(f"`{flag}" in page for flag in option.flags)
        assert all(f"`{variable}`" in page for variable in option.variables)
