"""The flags of commands that take a model: made from the settings, plus the documented ones that have no effect here.

``ModelCommand`` reads command lines written for the documented tool: underscores for dashes, and a list of labels after
one flag.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from backline.cli.messages import CallError
from backline.config.option import Option
from backline.config.settings import ADDRESS_OPTION, OPTIONS

_TITLES = {
    "model": "Model",
    "server": "Server",
    "workers": "Workers",
    "batch": "Batching",
    "score": "Scoring",
    "validate": "Validating",
    "limits": "Limits",
    "backend": "Backend",
    "generation": "Text generation by the backend",
    "security": "Security",
    "shadow": "Shadow",
    "log": "Logging",
}
_NUMBER = re.compile(r"-[0-9.]+")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CompatibleFlag:
    """A documented flag that is taken and does nothing: ``instead`` says why, or what to use."""

    flag: str
    instead: str
    takes_value: bool = True
    commands: tuple[str, ...] = ("serve", "score")


_NO_PLATFORM = "Backline does not report to a monitoring platform"
COMPATIBLE_FLAGS = (
    CompatibleFlag(flag="--production", instead="there is one server, and it is for production", takes_value=False),
    CompatibleFlag(flag="--monitor", instead=_NO_PLATFORM, takes_value=False),
    CompatibleFlag(flag="--monitor-embedded", instead=_NO_PLATFORM, takes_value=False),
    CompatibleFlag(flag="--monitor-settings", instead=_NO_PLATFORM),
    CompatibleFlag(flag="--deployment-id", instead=_NO_PLATFORM),
    CompatibleFlag(flag="--model-id", instead=_NO_PLATFORM),
    CompatibleFlag(flag="--webserver", instead=_NO_PLATFORM),
    CompatibleFlag(flag="--api-token", instead=_NO_PLATFORM),
    CompatibleFlag(
        flag="--deployment-config",
        instead="answers keep the form of the prediction server, not that of the platform",
        commands=("serve",),
    ),
    CompatibleFlag(flag="--docker", instead="use --python to name the environment that the model runs in"),
    CompatibleFlag(flag="--memory", instead="use --memory-limit to bound a worker's memory"),
    CompatibleFlag(
        flag="--skip-deps-install", instead="nothing is installed unless --env auto asks for it", takes_value=False
    ),
    CompatibleFlag(flag="--iterations", instead="use --duration, or --sizes", commands=("bench",)),
    CompatibleFlag(flag="--samples", instead="use --rows for the rows of a request", commands=("bench",)),
    CompatibleFlag(flag="--in-server", instead="it is always a server", takes_value=False, commands=("bench",)),
    CompatibleFlag(flag="--user-secrets-mount-path", instead="use --runtime-params-file to hand the model credentials"),
    CompatibleFlag(flag="--user-secrets-prefix", instead="use --runtime-params-file to hand the model credentials"),
)


class ModelCommand(click.Command):
    """A command that takes a model directory and the settings that apply to one of the commands ``settings_of``.

    ``without`` are sections of settings that it has no use for, or single ones.
    """

    def __init__(
        self,
        *args: Any,
        settings_of: str | tuple[str, ...],
        without: tuple[str, ...] = (),
        dir_metavar: str = "DIR",
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.settings_of = (settings_of,) if isinstance(settings_of, str) else settings_of
        own_flags = {flag for param in self.params for flag in param.opts}
        self.options = [
            option
            for option in (ADDRESS_OPTION, *OPTIONS)
            if self._applies(option.commands)
            and option.section not in without
            and option.dotted not in without
            and not own_flags & set(option.flags)
        ]
        self.compatible = [
            each for each in COMPATIBLE_FLAGS if self._applies(each.commands) and each.flag not in own_flags
        ]
        self.params = [
            click.Argument(["directory"], required=False, metavar=dir_metavar),
            *(_click_option(option) for option in self.options),
            click.Option(["--verbose"], is_flag=True, help="Log at level debug, and show tracebacks."),
            *(
                click.Option(
                    [each.flag, _parameter("compatible", each.flag)], is_flag=not each.takes_value, hidden=True
                )
                for each in self.compatible
            ),
            *self.params,
        ]

    def _applies(self, commands: tuple[str, ...]) -> bool:
        return "all" in self.settings_of or bool(set(self.settings_of) & set(commands))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, after making the documented spellings ours."""
        try:
            return super().parse_args(ctx, _respelled(args, _flags_of(self)))
        except click.UsageError as exc:
            if "unexpected extra argument" in exc.message:
                extra = re.sub(r".*\((.*)\).*", r"\1", exc.message)
                raise CallError(
                    f"unexpected words: {extra}", "name one model directory; put quotes around a value with blanks", ctx
                ) from exc
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags, grouped by section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        by_parameter = {_parameter(option.section, option.name): option for option in self.options}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None or isinstance(param, click.Argument):
                continue
            option = by_parameter.get(param.name or "")
            if option is not None and option.kind.is_switch:
                # One spelling: the one that changes something. That each has its opposite is said once, below.
                record = ((option.flag_for(False) if option.default else ", ".join(option.flags)), option_help(option))
            title = _TITLES[option.section] if option is not None else "Options"
            sections.setdefault(title, []).append(record)
        for title in ("Options", *_TITLES.values()):
            if title in sections:
                with formatter.section(title):
                    formatter.write_dl(sections[title])
        with formatter.indentation():
            formatter.write_paragraph()
            formatter.write_text("Each switch has its opposite, such as --no-allow-shutdown for --allow-shutdown.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelArguments:
    """What the command line says about the model: directory, flags by ``section.key``, and warnings."""

    directory: Path | None
    flags: Mapping[str, Any]
    warnings: tuple[str, ...]


def take_model_arguments(ctx: click.Context, values: dict[str, Any]) -> ModelArguments:
    """Take the model's arguments out of ``values``; what is left is the command's own."""
    command = ctx.command
    assert isinstance(command, ModelCommand)
    directory = values.pop("directory")
    flags = {option.dotted: values.pop(_parameter(option.section, option.name)) for option in command.options}
    verbose = values.pop("verbose")
    if verbose and flags.get("log.level") is None:
        flags["log.level"] = "debug"
    warnings = []
    for each in command.compatible:
        value = values.pop(_parameter("compatible", each.flag))
        if value is not None and value is not False:
            # Its value is not repeated: --api-token carries a secret.
            warnings.append(f"{each.flag} has no effect here: {each.instead}")
    code_dir = flags.pop("model.code_dir", None)
    if directory is not None and code_dir is not None and Path(directory).absolute() != Path(code_dir).absolute():
        raise CallError(f"two model directories: {directory} and --code-dir {code_dir}", "name one of them", ctx)
    if directory is None and code_dir is not None:
        flags["model.code_dir"] = code_dir
    if directory is None and code_dir is None and flags.get("model.class_labels"):
        # Every word after --class-labels is a label, so a directory there has been taken for one.
        last = str(flags["model.class_labels"][-1])
        if Path(last).is_dir():
            raise CallError(
                f"no model directory: {last} stands after --class-labels and counts as a label",
                f"put it before the flags, or write --code-dir {last}",
                ctx,
            )
    return ModelArguments(
        directory=None if directory is None else Path(directory), flags=flags, warnings=tuple(warnings)
    )


def serve_words(ctx: click.Context, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the flags of ``backline serve`` that say what this command line says of the model and its server."""
    command = ctx.command
    assert isinstance(command, ModelCommand)
    words: list[str] = []
    for option in command.options:
        value = values[_parameter(option.section, option.name)]
        if value is None or value == () or option.dotted == "model.code_dir" or "serve" not in option.commands:
            continue
        if option.kind.is_switch:
            words.append(option.flag_for(value))
        else:
            for each in value if isinstance(value, tuple) else (value,):
                words += [option.flags[0], str(each)]
    return tuple(words)


def _click_option(option: Option) -> click.Option:
    name = _parameter(option.section, option.name)
    if option.kind.is_switch:
        declared = [f"{option.flags[0]}/{option.flag_for(False)}", *option.flags[1:]]
        return click.Option([*declared, name], default=None, help=option_help(option))
    return click.Option(
        [*option.flags, name],
        metavar=_metavar(option),
        multiple=option.kind.is_list,
        help=option_help(option),
    )


def _metavar(option: Option) -> str:
    choices = option.kind.choices
    return f"[{'|'.join(choices)}]" if choices and len(choices) <= 3 else option.kind.metavar


def option_help(option: Option) -> str:
    """Return the help of a setting: what it does, its choices, its default."""
    choices = option.kind.choices
    listed = f" One of {', '.join(choices)}." if len(choices) > 3 else ""
    zero = f" 0 is {option.zero}." if option.zero else ""
    unsaid = option.kind.is_switch or option.default in (None, (), "", Path())
    default = "" if unsaid else f"  [default: {option.show(option.default)}]"
    text = f"Turn off: {option.help[0].lower()}{option.help[1:]}" if option.default is True else option.help
    return f"{text}{listed}{zero}{default}"


def _parameter(section: str, name: str) -> str:
    return f"{section}__{name.lstrip('-').replace('-', '_')}"


def _flags_of(command: click.Command) -> set[str]:
    return {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}


def _respelled(args: list[str], known: set[str]) -> list[str]:
    """Return ``args`` with dashes in flag names, and one ``--class-labels`` before each of its words."""
    respelled: list[str] = []
    words = iter(args)
    in_labels = False
    for word in words:
        if word == "--":
            return [*respelled, word, *words]
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            flag = flag.replace("_", "-")
            in_labels = flag == "--class-labels"
            if not in_labels or equals:
                respelled.append(flag + equals + value)
        elif in_labels and (word not in known and not (word.startswith("-") and not _NUMBER.fullmatch(word))):
            respelled += ["--class-labels", word]
        else:
            in_labels = False
            respelled.append(word)
    return respelled
