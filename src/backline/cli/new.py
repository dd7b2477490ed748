"""``backline new``: makes a model directory from a template."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import click

from backline.cli.messages import CallError, similar

TEMPLATES = {
    "regression": "one number for each row",
    "binary": "probabilities of two labels",
    "multiclass": "probabilities of several labels",
    "anomaly": "one score for each row",
    "textgeneration": "text for each row, and chat",
    "unstructured": "any body in, any body out",
    "transform": "a table in, a table out",
    "geopoint": "latitude and longitude for each row",
    "vectordatabase": "documents for each query",
    "agenticworkflow": "chat with tools",
    "sklearn": "train.py that trains a scikit-learn pipeline; no hooks",
}
"""Every template and what it answers; each is a folder of ``templates/``."""

_FOLDER = Path(__file__).parent / "templates"
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@click.command(epilog="As documented: backline new model --code-dir DIR --language python")
@click.argument("directory", required=False, metavar="DIR")
@click.option("--template", "-t", default="regression", show_default=True, metavar="NAME", help="What to start from.")
@click.option("--list", "list_templates", is_flag=True, help="List the templates.")
@click.option("--code-dir", "-cd", metavar="DIR", help="The same as DIR.")
@click.option("--code_dir", "code_dir", metavar="DIR", hidden=True)
@click.option("--language", metavar="LANGUAGE", help="The language of the model: python.")
@click.pass_context
def new(
    ctx: click.Context,
    /,
    directory: str | None,
    template: str,
    list_templates: bool,
    code_dir: str | None,
    language: str | None,
) -> int:
    """Make the model directory DIR, which must not exist yet. It can be served as it stands."""
    if list_templates:
        width = max(map(len, TEMPLATES))
        for name, summary in TEMPLATES.items():
            click.echo(f"{name:<{width}}  {summary}")
        return 0
    name = _template_named(template, ctx)
    if language is not None and language.lower() != "python":
        raise CallError(f"there is no template in {language}", "leave --language out, or give python", ctx)
    target = _target(directory, code_dir, ctx)
    _make(target, name)
    click.echo(f"Made {target} from the template {name}: {', '.join(sorted(each.name for each in target.iterdir()))}")
    shown = shlex.quote(str(target))
    if name == "sklearn":
        click.echo(f"Next: python {shown}/train.py && backline serve {shown}")
    else:
        click.echo(f"Next: backline serve {shown}")
    return 0


def _template_named(text: str, ctx: click.Context) -> str:
    name = text.lower().replace("-", "").replace("_", "")
    if name not in TEMPLATES:
        near = similar(name, TEMPLATES)
        mend = f"did you mean {near[0]}?" if near else "backline new --list shows the templates"
        raise CallError(f"there is no template {text}", mend, ctx)
    return name


def _target(directory: str | None, code_dir: str | None, ctx: click.Context) -> Path:
    if code_dir is not None and directory not in (None, "model", code_dir):
        raise CallError(f"two directories: {directory} and --code-dir {code_dir}", "name one of them", ctx)
    named = code_dir if code_dir is not None else directory
    if not named:
        raise CallError("no directory to make", "name it: backline new DIR", ctx)
    target = Path(named)
    if target.exists() or target.is_symlink():
        raise CallError(f"{target} exists", "name a directory that is not there yet; nothing was written", ctx)
    above = next((parent for parent in target.parents if parent.exists()), Path())
    if not above.is_dir():
        raise CallError(f"{above} is a file", "name a path inside a directory", ctx)
    return target


def _make(target: Path, template: str) -> None:
    """Copy the template to ``target``; what was copied is removed again where that fails."""
    try:
        shutil.copytree(_FOLDER / template, target, ignore=shutil.ignore_patterns("__pycache__"))
        metadata = target / "model-metadata.yaml"
        name = target.absolute().name
        quoted = name if _PLAIN_NAME.fullmatch(name) else json.dumps(name)  # a JSON string is a YAML string
        text = metadata.read_text(encoding="utf-8")
        metadata.write_text(text.replace("name: my-model\n", f"name: {quoted}\n", 1), encoding="utf-8")
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
