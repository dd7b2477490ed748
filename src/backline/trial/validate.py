"""Tries a model on a sample: whether it loads and answers, and whether a server may rely on its answers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backline.errors import ConfigError, ModelLoadFailed
from backline.observe.logs import logging_to_stderr
from backline.runtime.environments.prepare import python_if_there
from backline.trial.environment import NoInterpreter, ask_environment
from backline.trial.finding import Finding, Status, Table
from backline.trial.imports import imports_of
from backline.trial.pickles import Scan, scan_folder
from backline.trial.row_checks import RowChecks
from backline.trial.sample import Sample, read_sample
from backline.trial.tried_model import Outcome, TriedModel, tried_model

if TYPE_CHECKING:
    from backline.config.model_folder import ModelFolder

_SHIM = "datarobot_drum"  # the contract's import, which the worker provides
_UNSTRUCTURED_TYPES = {".json": "application/json", ".txt": "text/plain", ".csv": "text/csv", ".md": "text/markdown"}

CHECKS = (
    "packages",
    "pickles",
    "loads",
    "answers",
    "target type",
    "same twice",
    "subsets",
    "order",
    "batched",
    "missing values",
    "wrong types",
    "columns",
    "type schema",
)
"""Every check, in the order in which they are made."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ValidateJob:
    """What to try. ``rows`` bounds the sample, ``seconds`` each request; ``allow`` extends the list for pickles."""

    input: Path
    content_type: str = ""
    rows: int = 100
    seconds: float = 60.0
    allow: tuple[str, ...] = ()


@dataclasses.dataclass(slots=True, kw_only=True)
class Report:
    """All findings, and what is worth keeping beside them."""

    findings: list[Finding] = dataclasses.field(default_factory=list)
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    sample: str = ""
    schema: str = ""
    """The type schema that is offered, as YAML."""


def validate(folder: ModelFolder, job: ValidateJob, tell: Callable[[str], None] = lambda text: None) -> Report:
    """Make every check and return what was found. ``tell`` is told which check is being made.

    Raises ``ConfigError`` for a sample that cannot be used.
    """
    validation = _Validation(folder, job, tell)
    log = folder.settings.log
    # What workers say of the errors that are provoked here is in the findings.
    with logging_to_stderr(dataclasses.replace(log, level="critical") if log.level == "info" else log):
        return asyncio.run(validation.run())


class _Validation:
    """One run."""

    def __init__(self, folder: ModelFolder, job: ValidateJob, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._code_dir = folder.settings.model.code_dir
        self._job = job
        self._tell = tell
        self.report = Report()

    async def run(self) -> Report:
        sample = self._read_sample()
        self._begin("pickles")
        scan = await asyncio.to_thread(scan_folder, self._code_dir, self._job.allow)
        self._check_pickles(scan)
        self._begin("loads")
        try:
            async with tried_model(self._folder, seconds=self._job.seconds) as model:
                self._note_loaded(model)
                if model.reads_tables:
                    await self._try_rows(model, sample)
                else:
                    await self._try_body(model)
        except (ModelLoadFailed, ConfigError) as exc:
            if any(finding.check == "loads" for finding in self.report.findings):
                raise
            trace = getattr(exc, "traceback", None) or ""
            self._add("loads", Status.FAILED, exc.message, text=trace, mend="mend what the message names")
        self._begin("packages")
        await asyncio.to_thread(self._check_packages, scan)  # last: loading may have built the environment
        found = {finding.check for finding in self.report.findings}
        for check in CHECKS:
            if check not in found:
                self._add(check, Status.SKIPPED, self._why_skipped())
        self.report.findings.sort(key=lambda finding: CHECKS.index(finding.check))
        return self.report

    def _read_sample(self) -> Sample | ConfigError:
        if not self._job.input.is_file():
            raise ConfigError(f"--input {self._job.input}: there is no such file")
        try:
            return read_sample(self._job.input, self._job.rows, self._job.content_type)
        except ConfigError as exc:
            return exc  # a model that takes no rows gets the file as it is

    def _why_skipped(self) -> str:
        failed = {finding.check for finding in self.report.findings if finding.status is Status.FAILED}
        if "loads" in failed:
            return "the model does not load"
        if "answers" in failed or "target type" in failed:
            return "the model does not answer the sample"
        return "this model takes no rows"

    def _begin(self, check: str) -> None:
        self._tell(check)

    def _add(self, check: str, status: Status, seen: str, **more: Any) -> None:
        self.report.findings.append(Finding(check=check, status=status, seen=seen, **more))

    # --- without the model

    def _check_packages(self, scan: Scan) -> None:
        imports, unreadable = imports_of(self._code_dir)
        wanted = {each.module: each for each in imports}
        try:
            with python_if_there(self._folder.settings) as python:
                if python is None:
                    self._add("packages", Status.SKIPPED, "the environment has not been built")
                    return
                environment = ask_environment(python, self._code_dir, {*wanted, *scan.modules})
        except NoInterpreter as exc:
            self._add("packages", Status.FAILED, str(exc), mend="name the model's interpreter with --python")
            return
        missing = [
            (each.module, each.place, each.optional)
            for each in imports
            if not environment.modules[each.module] and each.module != _SHIM
        ]
        missing += [
            (module, next(named.file for named in scan.names if named.name.partition(".")[0] == module), False)
            for module in sorted(scan.modules)
            if not environment.modules[module] and module not in wanted and module not in ("__main__", "copy_reg")
        ]
        needed = [module for module, _, optional in missing if not optional]
        rows = tuple(
            (module, place, "in try: may be left out" if optional else "needed") for module, place, optional in missing
        )
        table = Table(head=("module", "imported by", ""), rows=rows) if rows else None
        if unreadable:
            self._add("packages", Status.FAILED, "; ".join(unreadable), mend="mend the file", table=table)
        elif needed:
            self._add(
                "packages",
                Status.FAILED,
                f"{', '.join(needed)} cannot be imported by {environment.executable} (Python {environment.version})",
                mend=f"{environment.executable} -m pip install the packages that bring them, or name another --python",
                table=table,
            )
        else:
            seen = f"all {len(wanted | dict.fromkeys(scan.modules))} modules that are imported are there"
            self._add("packages", Status.PASSED, f"{seen} (Python {environment.version})", table=table)

    def _check_pickles(self, scan: Scan) -> None:
        refused = [named for named in scan.names if not named.allowed]
        rows = [(name, "", problem) for name, problem in scan.problems]
        rows += [(named.file, named.name, named.verdict) for named in refused]
        allowed: dict[tuple[str, str], int] = {}
        for named in scan.names:
            if named.allowed:
                key = (named.file, named.verdict)
                allowed[key] = allowed.get(key, 0) + 1
        rows += [
            (file, f"{count} name{'s' if count > 1 else ''}", verdict) for (file, verdict), count in allowed.items()
        ]
        table = Table(head=("file", "names", "which are"), rows=tuple(rows)) if rows else None
        if refused or scan.problems:
            first = refused[0] if refused else None
            seen = (
                f"{first.file} names {first.name}, which is {first.verdict}"
                if first and first.verdict.startswith("not")
                else f"{first.file} names {first.name}, which {first.verdict}"
                if first
                else f"{scan.problems[0][0]} {scan.problems[0][1]}"
            )
            more = len(refused) + len(scan.problems) - 1
            self._add(
                "pickles",
                Status.FAILED,
                f"{seen}{f', and {more} more' if more else ''}",
                mend="open nothing whose origin you do not know; what you trust is let through by --allow NAME or "
                "validate.allow in backline.toml; skops, ONNX and safetensors carry no code",
                table=table,
            )
        elif scan.files:
            self._add(
                "pickles", Status.PASSED, f"{', '.join(scan.files)}: every name is of a known library", table=table
            )
        else:
            self._add("pickles", Status.PASSED, "there is no pickle in the directory")

    # --- with the model

    def _note_loaded(self, model: TriedModel) -> None:
        self.report.model = model.description
        library = " ".join(filter(None, (model.description.get("library"), model.description.get("library_version"))))
        hooks = f"hooks {', '.join(model.description['hooks'])}" if model.description["hooks"] else ""
        what = " with ".join(filter(None, (model.description.get("artifact"), hooks)))
        warnings = model.description.get("warnings") or []
        kind = model.description["target_type"]
        seen = f"{what}{f' ({library})' if library else ''} in {model.load_seconds:.1f} s, as {kind}"
        if warnings:
            self._add("loads", Status.WARNING, f"{seen}; {warnings[0]}", text="\n".join(warnings))
        else:
            self._add("loads", Status.PASSED, seen)

    async def _try_rows(self, model: TriedModel, sample: Sample | ConfigError) -> None:
        if isinstance(sample, ConfigError):
            raise sample
        of = "all" if sample.complete else "the first"
        self.report.sample = f"{self._job.input}: {of} {len(sample.rows)} rows, {len(sample.columns)} columns"
        checks = RowChecks(self._folder, model, sample, self._begin)
        try:
            await checks.run()
        finally:
            self.report.findings += checks.findings
            self.report.schema = checks.schema

    async def _try_body(self, model: TriedModel) -> None:
        """A model that takes no rows gets the file as it is."""
        self._begin("answers")
        body = await asyncio.to_thread(self._job.input.read_bytes)
        kind = self._job.content_type or _UNSTRUCTURED_TYPES.get(
            self._job.input.suffix.lower(), "application/octet-stream"
        )
        self.report.sample = f"{self._job.input}: {len(body):,} bytes, sent as {kind}"
        first = await model.ask(body, kind)
        if first.error is not None:
            self._add_error("answers", first)
            return
        self._add("answers", Status.PASSED, f"{len(first.body):,} bytes of {first.content_type}")
        self._begin("same twice")
        second = await model.ask(body, kind)
        if second.error is not None:
            self._add_error("same twice", second)
        elif second.body == first.body:
            self._add("same twice", Status.PASSED, "the same bytes")
        else:
            self._add(
                "same twice",
                Status.WARNING,
                "the second answer to the same request differs",
                mend="if that is not meant (a temperature, a time, an id), fix the random seed in the model",
            )

    def _add_error(self, check: str, outcome: Outcome, **more: Any) -> None:
        assert outcome.error is not None
        trace = getattr(outcome.error, "traceback", None) or ""
        self._add(check, Status.FAILED, outcome.error.message, text=trace, **more)
