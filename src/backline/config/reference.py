"""The settings reference as Markdown, made from the settings themselves."""

from __future__ import annotations

from backline.config.option import Option
from backline.config.settings import ADDRESS_OPTION, OPTIONS, SECTIONS

_INTRODUCTION = """# Settings

Generated from the settings themselves; `backline config show DIR` prints them with their values and sources.

Which source wins, the strongest first:

1. flags
2. environment variables, `BACKLINE_...` before the documented ones; an empty variable counts as not set
3. the runtime parameter `CUSTOM_MODEL_WORKERS`: in `--runtime-params-file`, then in its `MLOPS_RUNTIME_PARAM_` variable
4. `backline.toml` in the model directory
5. `model-metadata.yaml`, for target type, target name and class labels, and the default of `CUSTOM_MODEL_WORKERS`
6. defaults

Byte sizes are `512`, `64k` or `64KiB` (65,536), `50MB` (50,000,000), `1.5GiB`.
Durations are seconds, `30` or `0.5`, or have a unit: `500ms`, `30s`, `10m`, `1h`.
Switches are `true` or `false`, in variables also `1`, `0`, `yes`, `no`, `on`, `off`.
A relative path is taken from the working directory in flags and variables, from the model directory in its files.

<!-- file: churn/backline.toml -->
```toml
[server]
address = "0.0.0.0:8080"

[workers]
count = 2
timeout = "2m"
```
"""


def render_markdown() -> str:
    """Return the page: a section for each section of the tree, an entry for each setting."""
    pieces = [_INTRODUCTION]
    for section, settings_class in SECTIONS.items():
        pieces.append(f"## {section}\n\n{(settings_class.__doc__ or '').splitlines()[0]}\n")
        options = [option for option in OPTIONS if option.section == section]
        if section == ADDRESS_OPTION.section:
            options.insert(0, ADDRESS_OPTION)
        pieces.extend(_entry(option) for option in options)
    return "\n".join(pieces)


def _entry(option: Option) -> str:
    flags = [f"`{flag}{f' {option.kind.metavar}' if option.kind.metavar else ''}`" for flag in option.flags]
    if option.kind.is_switch:
        flags.append(f"`{option.flag_for(False)}`")
    lines = [
        f"### {option.dotted}",
        "",
        option.help,
        "",
        f"- value: {option.kind.name}{_range(option)}",
        f"- default: {_default(option)}",
        f"- flags: {', '.join(flags)}",
        f"- environment: {', '.join(f'`{variable}`' for variable in option.variables)}",
    ]
    if option.kind.choices and option.kind.metavar == "TYPE":
        lines.insert(5, f"- choices: {', '.join(f'`{word}`' for word in option.kind.choices)}")
    lines += [
        f"- `{variable}` is moved into {least:g} to {most:g}" for variable, (least, most) in option.clamped.items()
    ]
    if not option.in_file:
        lines.append("- cannot be set in `backline.toml`")
    if option.commands != ("serve", "score"):
        lines.append(f"- for {' and '.join(f'`backline {command}`' for command in option.commands)} only")
    return "\n".join(lines) + "\n"


def _default(option: Option) -> str:
    if option is ADDRESS_OPTION:
        return "`127.0.0.1:8080`"
    if option.dotted == "model.code_dir":
        return "none; it has to be given"
    text = option.show(option.default)
    return text if option.default is None or option.default == () else f"`{text}`"


def _range(option: Option) -> str:
    # A limit has the type of the default; the memory limit has none and is a whole number of bytes.
    number = float if isinstance(option.default, float) else int
    limits = [None if limit is None else option.show(number(limit)) for limit in (option.least, option.most)]
    zero = f", or 0 for {option.zero}" if option.zero else ""
    if limits[0] is None:
        return ""
    return f", at least {limits[0]}{zero}" if limits[1] is None else f", from {limits[0]} to {limits[1]}{zero}"
