"""The checks of a model that takes rows: the same rows, cut, reordered, batched, emptied and misused."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from backline.errors import BacklineError
from backline.trial.answers import RELATIVE, SINGLE_RELATIVE, Cells, compare, looks_single
from backline.trial.finding import Finding, Status, Table
from backline.trial.sample import Sample
from backline.trial.target_rules import broken_rules
from backline.trial.tried_model import Outcome, TriedModel
from backline_worker.codecs.formats import CSV

if TYPE_CHECKING:
    from backline.config.model_folder import ModelFolder

_MOST_SINGLES = 16
_MOST_COLUMNS = 200


class RowChecks:
    """Makes the checks on a loaded model.

    ``findings`` has what was found so far, ``schema`` the type schema that is offered, as YAML.
    """

    def __init__(self, folder: ModelFolder, model: TriedModel, sample: Sample, begin: Callable[[str], None]) -> None:
        self._folder = folder
        self._model = model
        self._sample = sample
        self._begin = begin
        self._base: tuple[Cells, ...] = ()
        self.findings: list[Finding] = []
        self.schema = ""

    def _add(self, check: str, status: Status, seen: str, **more: Any) -> None:
        self.findings.append(Finding(check=check, status=status, seen=seen, **more))

    async def run(self) -> None:
        """Make every check; without an answer to the sample there is nothing more to try."""
        model, sample = self._model, self._sample
        self._begin("answers")
        whole = await model.ask(sample.body(), sample.content_type)
        if not self._check_answer(model, whole, sample):
            return
        assert whole.rows is not None
        self._base = whole.rows
        tolerance = SINGLE_RELATIVE if looks_single(whole.rows) else RELATIVE
        self._begin("same twice")
        again = await model.ask(sample.body(), sample.content_type)
        self._check_twice(again)
        self._begin("subsets")
        await self._check_rows_alone(model, sample, tolerance)
        self._begin("batched")
        await self._check_batched(model, sample, tolerance)
        self._begin("missing values")
        await self._check_missing(model, sample)
        self._begin("wrong types")
        await self._check_wrong_types(model, sample)
        self._begin("columns")
        await self._check_columns(model, sample, tolerance)
        self._begin("type schema")
        await self._check_schema(model, sample)

    def _add_error(self, check: str, outcome: Outcome, **more: Any) -> None:
        assert outcome.error is not None
        trace = getattr(outcome.error, "traceback", None) or ""
        self._add(check, Status.FAILED, outcome.error.message, text=trace, **more)

    def _check_answer(self, model: TriedModel, whole: Outcome, sample: Sample) -> bool:
        """Check the first answer; return whether there is something to go on with."""
        if whole.code == "result_invalid":
            self._add_error("target type", whole, mend="let the hook return what the target type asks for")
            return False
        if whole.rows is None:
            self._add_error("answers", whole, mend="is the sample one of this model's? backline serve answers the same")
            return False
        self._add("answers", Status.PASSED, f"{len(whole.rows)} predictions for {len(sample.rows)} rows")
        problems = broken_rules(whole.rows, model.description, len(sample.rows))
        kind = model.description["target_type"]
        if problems:
            self._add(
                "target type",
                Status.FAILED,
                f"{kind}: {'; '.join(problems)}",
                mend="mend what the model or its hook returns",
            )
        else:
            self._add("target type", Status.PASSED, f"{kind}: every prediction is what that asks for")
        return len(whole.rows) == len(sample.rows)

    def _check_twice(self, again: Outcome) -> None:
        if again.rows is None:
            self._add_error("same twice", again)
            return
        difference = compare(self._base, again.rows, relative=0.0)
        if difference.same:
            self._add("same twice", Status.PASSED, "the second answer to the same request is the same, to the last bit")
        else:
            self._add(
                "same twice",
                Status.FAILED,
                f"{len(difference.rows)} of {len(self._base)} rows differ: {difference.example}",
                mend="fix the random seed, and let a prediction not depend on the time or on earlier requests",
            )

    async def _check_rows_alone(self, model: TriedModel, sample: Sample, tolerance: float) -> None:
        """Subsets and another order: the same rows have to get the same predictions."""
        count = len(sample.rows)
        half = count // 2
        subsets = [("first half", range(half)), ("second half", range(half, count))] if half else []
        subsets += [(f"row {place + 1} alone", range(place, place + 1)) for place in range(min(count, _MOST_SINGLES))]
        shuffled = list(range(count))
        random.Random(0).shuffle(shuffled)  # noqa: S311  (the same order every time, and no secret)
        results = {
            "subsets": [await self._compare_places(model, sample, name, places, tolerance) for name, places in subsets],
            "order": [
                await self._compare_places(model, sample, name, places, tolerance)
                for name, places in (("reversed", range(count - 1, -1, -1)), ("shuffled", shuffled))
            ],
        }
        would_batch = self._would_batch(model)
        for check, cases in results.items():
            wrong = [(name, told) for name, told, _ in cases if told]
            largest = max((distance for _, _, distance in cases), default=0.0)
            table = Table(head=("rows", "seen"), rows=tuple((name, told or "the same") for name, told, _ in cases))
            if not wrong:
                bits = "to the last bit" if largest == 0 else f"but for {largest:.1e}, relatively"
                self._add(check, Status.PASSED, f"the same predictions, {bits}{self._may_batch(model)}", table=table)
            else:
                self._add(
                    check,
                    Status.FAILED if would_batch else Status.WARNING,
                    f"predictions depend on the other rows: {wrong[0][0]}: {wrong[0][1]}",
                    mend="its rows must not be batched: --batch off"
                    if would_batch
                    else "what a client gets depends on how many rows he sends at a time; let each row be predicted by "
                    "itself, and leave --batch as it is",
                    table=table,
                )

    def _would_batch(self, model: TriedModel) -> bool:
        """Whether a server would let this model's requests share calls."""
        mode = self._folder.settings.batch.mode
        return mode == "on" or (mode == "auto" and bool(model.description["rows_independent"]))

    def _may_batch(self, model: TriedModel) -> str:
        if self._folder.settings.batch.mode == "auto" and not model.description["rows_independent"]:
            return '; if that holds for all data, mode = "on" under [batch] in backline.toml lets requests share calls'
        return ""

    async def _compare_places(
        self, model: TriedModel, sample: Sample, name: str, places: Sequence[int], tolerance: float
    ) -> tuple[str, str, float]:
        """Return the name, what is wrong (empty: nothing), and the largest relative difference."""
        outcome = await model.ask(sample.body([sample.rows[place] for place in places]), sample.content_type)
        if outcome.rows is None:
            return name, outcome.told, 0.0
        difference = compare([self._base[place] for place in places], outcome.rows, relative=tolerance)
        return name, "" if difference.same else difference.example, difference.largest

    async def _check_batched(self, model: TriedModel, sample: Sample, tolerance: float) -> None:
        rows = list(sample.rows[:_MOST_SINGLES])
        if model.operation != "predict" or len(rows) < 2:
            self._add("batched", Status.SKIPPED, "only predictions share calls, and it takes two rows to try")
            return
        bodies = [sample.body([row]) for row in rows]
        alone = [await model.ask(body, sample.content_type) for body in bodies]
        before = model.model_calls()
        together = await model.ask_together(bodies, sample.content_type)
        calls = model.model_calls() - before
        wrong, largest = [], 0.0
        for place, (one, other) in enumerate(zip(alone, together, strict=True)):
            if one.rows is None or other.rows is None:
                if one.told != other.told:
                    wrong.append(f"row {place + 1}: {one.told} alone, {other.told} in a batch")
                continue
            difference = compare(one.rows, other.rows, relative=tolerance)
            largest = max(largest, difference.largest)
            if not difference.same:
                wrong.append(difference.example.replace("row 1", f"row {place + 1}", 1))
        shared = f"{len(bodies)} requests in {calls} calls of the model"
        applies = self._would_batch(model)
        if wrong:
            self._add(
                "batched",
                Status.FAILED if applies else Status.WARNING,
                f"{shared}: {wrong[0]}{f', and {len(wrong) - 1} more' if len(wrong) > 1 else ''}",
                mend="--batch off" if applies else "leave batching off for this model, as it is",
            )
        else:
            bits = "to the last bit" if largest == 0 else f"but for {largest:.1e}, relatively"
            self._add("batched", Status.PASSED, f"{shared}: the same answers as alone, {bits}")

    async def _check_missing(self, model: TriedModel, sample: Sample) -> None:
        forbidden = any(
            str(rule.get("field", "")).lower() == "contains_missing"
            and "FORBIDDEN" in str(rule.get("value", "")).upper()
            for rule in self._folder.metadata.input_requirements
        )
        cases: list[tuple[str, bool, str]] = []
        for name in sample.columns[:_MOST_COLUMNS]:
            rows = sample.changed(name, lambda value: sample.empty)
            body = sample.body(rows)
            if len(sample.columns) == 1 and sample.content_type == CSV:
                body = sample.body([{name: "NA"} for _ in rows])  # a line with nothing on it is no row
            outcome = await model.ask(body, sample.content_type)
            good = outcome.rows is not None or (forbidden and outcome.code == "schema_mismatch")
            cases.append((name, good, outcome.told))
        failed = [(name, told) for name, good, told in cases if not good]
        table = Table(
            head=("column emptied", "status", "seen"),
            rows=tuple((name, "PASSED" if good else "FAILED", told) for name, good, told in cases),
        )
        if failed:
            self._add(
                "missing values",
                Status.FAILED,
                f"{len(failed)} of {len(cases)} columns may not be empty: {failed[0][0]}: {failed[0][1]}",
                mend="let the model impute, or say in typeSchema that contains_missing is FORBIDDEN, so that such rows "
                "are refused by rule",
                table=table,
            )
        else:
            how = "refused, as the type schema says" if forbidden else "answered"
            self._add(
                "missing values", Status.PASSED, f"each of {len(cases)} columns emptied in turn: {how}", table=table
            )

    async def _check_wrong_types(self, model: TriedModel, sample: Sample) -> None:
        cases = []
        for name in sample.columns[:_MOST_COLUMNS]:
            numeric = sample.is_numeric(name)
            wrong: Any = "no number" if numeric else (12345 if sample.content_type != CSV else "12345")
            outcome = await model.ask(
                sample.body(sample.changed(name, functools.partial(_instead, wrong))), sample.content_type
            )
            what = f"{name}: {'text for numbers' if numeric else 'numbers for text'}"
            cases.append((what, outcome.rows is not None or outcome.refused, outcome))
        self._add_refusals("wrong types", cases, "answered, or refused as the client's mistake")

    async def _check_columns(self, model: TriedModel, sample: Sample, tolerance: float) -> None:
        cases: list[tuple[str, bool, Outcome]] = []
        for name in sample.columns[:_MOST_COLUMNS]:
            rest = [column for column in sample.columns if column != name]
            if rest:
                outcome = await model.ask(sample.body(columns=rest), sample.content_type)
                cases.append((f"without {name}", outcome.rows is not None or outcome.refused, outcome))
        extra = await model.ask(
            sample.body([{**row, "backline_extra": "1"} for row in sample.rows], [*sample.columns, "backline_extra"]),
            sample.content_type,
        )
        same = extra.rows is not None and compare(self._base, extra.rows, relative=tolerance).same
        cases.append(("with a column more", same or extra.refused, extra))
        backwards = await model.ask(sample.body(columns=sample.columns[::-1]), sample.content_type)
        same = backwards.rows is not None and compare(self._base, backwards.rows, relative=tolerance).same
        cases.append(("columns in another order", same or backwards.refused, backwards))
        none = await model.ask(sample.body(rows=[]), sample.content_type)
        cases.append(("no rows at all", none.rows is not None or none.refused, none))
        self._add_refusals("columns", cases, "the same answers, or refused as the client's mistake")

    def _add_refusals(self, check: str, cases: list[tuple[str, bool, Outcome]], good_text: str) -> None:
        table = Table(
            head=("sent", "status", "seen"),
            rows=tuple(
                (what, "PASSED" if good else "FAILED", outcome.told if outcome.error or good else "other answers")
                for what, good, outcome in cases
            ),
        )
        failed = [(what, outcome) for what, good, outcome in cases if not good]
        if failed:
            what, outcome = failed[0]
            self._add(
                check,
                Status.FAILED,
                f"{len(failed)} of {len(cases)}: {what}: {outcome.told if outcome.error else 'gives other answers'}",
                mend="let the model look its columns up by name, and a typeSchema in model-metadata.yaml, or the hook "
                "by a CustomHTTPError, refuse what it cannot use",
                table=table,
                text=getattr(outcome.error, "traceback", None) or "",
            )
        else:
            self._add(check, Status.PASSED, f"{len(cases)} cases: {good_text}", table=table)

    async def _check_schema(self, model: TriedModel, sample: Sample) -> None:
        has = bool(self._folder.metadata.input_requirements)
        try:
            offer = await model.offer_schema(sample.body(), sample.content_type)
        except BacklineError as exc:
            self._add("type schema", Status.WARNING, f"none could be inferred: {exc.message}")
            return
        if not offer["rules"]:
            self._add("type schema", Status.SKIPPED, "read_input_data makes something else of the body than a table")
            return
        self.schema = schema_yaml(offer)
        rows = tuple((column["name"], column["type"], str(column["missing"])) for column in offer["columns"])
        table = Table(head=("column", "type", "missing"), rows=rows)
        if has:
            # The sample was answered, so it keeps the rules that there are.
            self._add("type schema", Status.PASSED, "the sample keeps the rules of model-metadata.yaml", table=table)
            return
        self._add(
            "type schema",
            Status.WARNING,
            "the directory has none, so rows of other types reach the model; one is offered",
            mend="add it to model-metadata.yaml, or let --write-schema do it; check what it says of missing values",
            table=table,
            text=self.schema,
        )


def _instead(wrong: Any, value: Any) -> Any:
    return wrong


def schema_yaml(offer: dict[str, Any]) -> str:
    """Return the rules as a piece of ``model-metadata.yaml``."""
    lines = ["typeSchema:", "  input_requirements:"]
    for rule in offer["rules"]:
        value = rule["value"]
        lines += [
            f"    - field: {rule['field']}",
            f"      condition: {rule['condition']}",
            f"      value: [{', '.join(value)}]" if isinstance(value, list) else f"      value: {value}",
        ]
    return "\n".join(lines) + "\n"
