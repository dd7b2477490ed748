"""The loaded model and its pipeline: decode, check the columns, transform, predict, post-process, check, encode."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import tempfile
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence

from .artifacts.base import Predictor
from .artifacts.columns import align, missing_column
from .contract import chat as chat_contract
from .contract import results, unstructured
from .contract.chat import ChatRequest
from .contract.chat_stream import Collector
from .contract.hook_loop import HookLoop
from .contract.hooks import translate, user_traceback
from .contract.metadata import ModelMetadata
from .contract.runtime_params import RuntimeParameters
from .contract.schema import Rule, parse_rules, violations
from .contract.target_types import Predictions, Target, TargetType, match_labels
from .errors import (
    EmptyBody,
    HookFailed,
    MissingPart,
    OperationUnavailable,
    ReportedError,
    ResultInvalid,
    SchemaMismatch,
)
from .loading import DATA_HOOKS, LoadedFolder, describe, load_folder
from .types import Answer, ModelSpec, Part, Request

if TYPE_CHECKING:
    from .codecs.joined import Joined

Stage = Callable[[str], None]

_REFUSALS = ("CatBoostError", "InvalidArgument")  # what CatBoost and ONNX Runtime raise for rows that do not fit
_MAX_EXAMPLE_BYTES = 8 << 10


class Model:
    """The loaded model: hooks and/or artifact, target type, class labels; one request at a time."""

    def __init__(self, spec: ModelSpec, folder: LoadedFolder) -> None:
        """Use ``load``; this only puts together what it made."""
        self._spec = spec
        self._hooks = folder.hooks
        self._model = folder.model
        self._predictor = folder.predictor
        self._target = folder.target
        self._input_rules = _rules(folder.metadata, output=False)
        self._output_rules = _rules(folder.metadata, output=True)
        self._refuse_unknown = spec.unknown_columns == "refuse"
        self.description = describe(folder)
        self.description["chats"] = self.chats

    @classmethod
    def load(cls, spec: ModelSpec) -> Model:
        """Load the model folder; user code runs for the first time here. Raises ``ModelLoadError``.

        Afterwards ``sys.path`` starts with the folder, runtime parameters are in the environment, and ``custom`` and
        the import shim are importable.
        """
        return cls(spec, load_folder(spec))

    @property
    def target(self) -> Target:
        """What the predictions look like."""
        return self._target

    @property
    def reads_tables(self) -> bool:
        """Whether bodies are read by our codecs, so that several can be read as one table."""
        return "read_input_data" not in self._hooks

    def read_table(self, parts: Sequence[Part], content_encoding: str) -> Any:
        """Return the rows of a request: what ``read_input_data`` makes of part ``X``, else the decoded table.

        Raises a ``RequestError`` for a body that is none, or what user code raised.
        """
        from .codecs import decode_table, decompress

        part, others = _data_part(parts)
        limit = self._spec.max_decompressed_bytes
        if "read_input_data" not in self._hooks:
            return decode_table(part, others, content_encoding=content_encoding, max_bytes=limit)
        if not len(part.data):
            raise EmptyBody("the body is empty; send the data to predict on")
        data = bytes(decompress(part.data, content_encoding, limit))
        if not self._spec.read_input_data_as_path:
            return self._hooks.call("read_input_data", data)
        with _file_holding(data, part.filename) as path:
            return self._hooks.call("read_input_data", path)

    def read_tables(self, parts: Sequence[Part]) -> List[Joined]:
        """Return tables that each hold the rows of several of these requests' parts, read as if alone.

        Parts in no table have to be read alone. Nothing is raised for a part that is at fault.
        """
        from .codecs import decode_together

        return decode_together(parts, max_bytes=self._spec.max_decompressed_bytes)

    def predict_table(self, data: Any) -> Predictions:
        """Return the checked predictions for a frame, one row for each of its rows.

        Raises ``SchemaMismatch`` for columns that the model cannot use, ``ResultInvalid`` for a result that does not
        fit the target type, and ``HookFailed``, ``UserHTTPError`` or ``OutOfMemory`` for what user code or the library
        raised.
        """
        self._check_predicts_tables()
        self._check_input(data)
        rows = _row_count(data)
        if "transform" in self._hooks:
            data = self._call_on_data("transform", data)
        if "score" in self._hooks:
            result, source = self._call_on_data("score", data, **self._label_arguments()), "score"
        else:
            predictions = self._predict_by_artifact(data, rows)
            if "post_process" not in self._hooks:
                return predictions
            result, source = results.to_frame(predictions), "the artifact"
        if "post_process" in self._hooks:
            result, source = self._hooks.call("post_process", result, self._model), "post_process"
        return results.check_result(result, self._target, rows, source=source)

    def predict(self, request: Request, stage: Stage) -> Answer:
        """Answer a request for predictions in the format that ``Accept`` asks for."""
        from .codecs import choose_output, encode_predictions

        self._check_predicts_tables()  # before the body is looked at: no body would be the right one
        stage("decode")
        content_type = choose_output(request.accept, self.description["output_formats"])
        table = self.read_table(request.parts, request.content_encoding)
        stage("predict")
        predictions = self.predict_table(table)
        stage("encode")
        return Answer(content_type, encode_predictions(predictions, content_type))

    def transform(self, request: Request, stage: Stage) -> Answer:
        """Answer a transform request: part ``X``, and ``y`` where the transform takes a target too.

        A lone dense table is the body itself. A pair, or a sparse matrix, whose column names have no place in its
        format, is answered as multipart: parts ``X``, ``y`` and ``X.colnames``.
        """
        from .contract.transform import answer_transform

        if self._target.type is not TargetType.TRANSFORM:
            raise OperationUnavailable(
                "the model's target type is {}; only transform models transform".format(self._target.type.value)
            )
        stage("decode")
        x, y = self._read_pair(request)
        stage("predict")
        result = self._transform(x, y)
        stage("encode")
        return answer_transform(result, x, self._output_rules, request.accept)

    def unstructured(self, request: Request, stage: Stage) -> Answer:
        """Answer with whatever ``score_unstructured`` returns for the raw body."""
        from .codecs import decompress

        if "score_unstructured" not in self._hooks:
            raise OperationUnavailable(
                "the model has no hook score_unstructured; its target type is {}".format(self._target.type.value)
            )
        stage("decode")
        part = request.parts[0] if request.parts else Part("X", "", b"")
        data = decompress(part.data, request.content_encoding, self._spec.max_decompressed_bytes) if part.data else b""
        given = unstructured.read_input(part.content_type, bytes(data))
        stage("predict")
        offered: Dict[str, Any] = {
            "query": unstructured.Query(request.query_lists),
            "mimetype": given.mimetype,
            "headers": dict(request.headers),
        }
        if given.charset is not None:
            offered["charset"] = given.charset
        result = self._hooks.call("score_unstructured", self._model, given.data, **offered)
        stage("encode")
        return unstructured.write_result(result)

    def chat(self, request: Request, stage: Stage) -> Answer:
        """Answer a chat completion request as JSON, also where the hook returns a stream."""
        stage("decode")
        chat = self.read_chat(request)
        stage("predict")
        result = self.start_chat(chat)
        try:
            if inspect.isawaitable(result):
                result = self._hooks.run(result)
            if chat_contract.is_stream(result):
                collector = Collector()
                if hasattr(result, "__aiter__"):
                    self._hooks.run(_collect(result, collector))
                else:
                    for chunk in result:
                        collector.add(chunk)
                result = collector.completion()
            stage("encode")
            return chat_contract.write_completion(result, chat.association)
        except BaseException as exc:
            raise self.chat_failed(exc) from exc

    def read_chat(self, request: Request) -> ChatRequest:
        """Read the request of a chat. Raises ``OperationUnavailable`` without a hook, or a ``RequestError``."""
        from .codecs import decompress

        if "chat" not in self._hooks:
            raise OperationUnavailable(
                "the model has no hook chat; define chat(completion_create_params, model) for it"
            )
        part = request.parts[0] if request.parts else Part("X", "", b"")
        data = decompress(part.data, request.content_encoding, self._spec.max_decompressed_bytes) if part.data else b""
        return chat_contract.read_request(bytes(data), request.headers)

    @property
    def chats(self) -> int:
        """How many chats may be open at a time: as many as there are threads where the hook holds one; 0: none."""
        if "chat" not in self._hooks:
            return 0
        return self._spec.chats if self.chats_are_async else self._spec.threads

    @property
    def chats_are_async(self) -> bool:
        """Whether calling ``start_chat`` runs no code of the hook's yet."""
        return self._hooks.is_async("chat")

    @property
    def hook_loop(self) -> HookLoop:
        """The event loop that the asynchronous hooks run on."""
        return self._hooks.hook_loop()

    def start_chat(self, chat: ChatRequest) -> Any:
        """Call ``chat`` and return what it returns: a completion, a stream, or an awaitable of one of these.

        Raises what the hook raises; ``chat_failed`` makes the error of it.
        """
        return self._hooks.start("chat", chat.params, self._model, headers=dict(chat.headers))

    def chat_failed(self, exc: BaseException) -> ReportedError:
        """Return what to report for what the hook, its stream, or the writing of its objects raised."""
        return translate(exc, "chat", self._hooks.code_dir)

    def prompts(self, request: Request, stage: Stage) -> Answer:
        """Answer with the prompts in the rows, as a JSON list: the server has them answered by its LLM backend."""
        from .codecs import choose_output, decode_texts

        stage("decode")
        choose_output(request.accept, self.description["output_formats"])  # before the backend has done all the work
        part, _ = _data_part(request.parts)
        limit = self._spec.max_decompressed_bytes
        column = self._spec.prompt_column
        texts = decode_texts(part, column, content_encoding=request.content_encoding, max_bytes=limit)
        return Answer("application/json", json.dumps(texts).encode())

    def texts(self, request: Request, stage: Stage) -> Answer:
        """Answer with generated texts, a JSON list, as predictions in the format that ``Accept`` asks for."""
        from .codecs import choose_output, encode_predictions

        stage("encode")
        content_type = choose_output(request.accept, self.description["output_formats"])
        texts = json.loads(bytes(request.parts[0].data))
        name = self._target.name or results.PREDICTIONS
        predictions = Predictions(self._target.type, {name: texts}, len(texts))
        return Answer(content_type, encode_predictions(predictions, content_type))

    def supported_models(self, request: Request, stage: Stage) -> Answer:
        """Answer with the models that clients may name: the hook's, else the one of ``LLM_ID``, else none."""
        if not self._target.type.is_llm:
            raise OperationUnavailable(
                "the model's target type is {}; only textgeneration and agenticworkflow models list models".format(
                    self._target.type.value
                )
            )
        stage("predict")
        result = None
        if "get_supported_llm_models" in self._hooks:
            result = self._hooks.call("get_supported_llm_models", self._model)
            result = [] if result is None else result
        llm_id = RuntimeParameters.get("LLM_ID") if RuntimeParameters.has("LLM_ID") else os.environ.get("LLM_ID")
        stage("encode")
        return self._guarded("get_supported_llm_models", lambda: chat_contract.write_models(result, llm_id))

    def warm_up(self) -> Optional[Dict[str, Any]]:
        """Predict once, so that ready means that a prediction has worked; return the request for a person to repeat.

        The rows are those of the example file, else one row of zeros for an artifact that knows its columns and has no
        hooks. Zeros need not make sense to a model, so their failing means nothing; an example's failing raises
        ``ModelLoadError``.
        """
        from .warm_up import from_example, synthetic

        if self.description["generates"]:
            return None
        if self._spec.example is not None:
            return from_example(self, self._spec.example, _MAX_EXAMPLE_BYTES)
        predictor = self._predictor
        if predictor is None or any(name in self._hooks for name in DATA_HOOKS):
            return None
        return synthetic(self, predictor, _MAX_EXAMPLE_BYTES)

    def close(self) -> None:
        """Release what the model holds besides memory: the event loop of its hooks."""
        self._hooks.close()

    def _check_predicts_tables(self) -> None:
        if self._target.type in (TargetType.UNSTRUCTURED, TargetType.TRANSFORM):
            operation = "unstructured" if self._target.type is TargetType.UNSTRUCTURED else "transform"
            raise OperationUnavailable(
                "the model's target type is {}, so it predicts no tables; use the {} operation".format(
                    self._target.type.value, operation
                )
            )
        if "score" not in self._hooks and self._predictor is None:
            raise OperationUnavailable("the model has no hook score, so it predicts no tables; it answers chats")

    def _predict_by_artifact(self, data: Any, rows: int) -> Predictions:
        predictor = self._predictor
        assert predictor is not None  # resolve_target makes sure that something predicts
        source = "the model ({})".format(type(predictor.model).__name__)
        if hasattr(data, "columns"):
            name = self._target.name
            data = align(data, predictor, refuse_unknown=self._refuse_unknown, target_name=name)
        probabilities = self._target.type.has_class_labels
        try:
            values = predictor.predict_proba(data) if probabilities else predictor.predict(data)
        except BaseException as exc:
            if isinstance(exc, (ValueError, TypeError)) or type(exc).__name__ in _REFUSALS:
                # Text in a column of numbers, a missing value that it cannot take: libraries say it in their own words.
                raise SchemaMismatch(
                    "{} refuses these rows: {}: {}".format(source, type(exc).__name__, exc),
                    traceback=user_traceback(exc, self._hooks.code_dir),
                ) from exc
            raise translate(exc, "predict", self._hooks.code_dir) from exc
        if probabilities:
            classes = self._classes(predictor)
            return results.check_probabilities(values, classes, self._target, rows, source=source)
        return results.check_values(values, self._target, rows, source=source)

    def _call_on_data(self, hook: str, data: Any, **offered: Any) -> Any:
        """Call a hook on the rows; a column that it asks for and does not get is the client's to mend."""
        try:
            return self._hooks.call(hook, data, self._model, **offered)
        except HookFailed as exc:
            missing = missing_column(exc.__cause__, data)
            if missing is None:
                raise
            raise SchemaMismatch(
                "the model's {} hook looked up {}, and the data has no such column; its columns are {}".format(
                    hook, missing, ", ".join(map(str, data.columns[:50]))
                ),
                traceback=exc.traceback,
            ) from exc

    def _classes(self, predictor: Predictor) -> Optional[Sequence[Any]]:
        """Return the class of each of the artifact's columns: its own, or numbers where the labels are just these."""
        if predictor.classes is not None:
            return predictor.classes
        numbers = range(len(self._target.labels))
        return numbers if match_labels(self._target.labels, numbers) is not None else None

    def _check_input(self, data: Any) -> None:
        if not self._input_rules or not hasattr(data, "dtypes"):
            return
        problems = violations(self._input_rules, data)
        if problems:
            raise SchemaMismatch(
                "the data breaks {} of the model's type schema:\n{}".format(
                    "a rule" if len(problems) == 1 else "{} rules".format(len(problems)), "\n".join(problems)
                ),
                details={"violations": problems},
            )

    def _label_arguments(self) -> Dict[str, Any]:
        labels = self._target.labels
        if self._target.type is TargetType.BINARY:
            return {"positive_class_label": labels[0], "negative_class_label": labels[1]}
        if self._target.type is TargetType.MULTICLASS:
            return {"class_labels": list(labels)}
        return {}

    def _read_pair(self, request: Request) -> Any:
        x = self.read_table([part for part in request.parts if part.name != "y"], request.content_encoding)
        target = [part for part in request.parts if part.name == "y"]
        if not target:
            return x, None
        from .codecs import decode_table

        limit = self._spec.max_decompressed_bytes
        y = decode_table(target[0], (), content_encoding=request.content_encoding, max_bytes=limit)
        if len(y.columns) != 1 or len(y) != _row_count(x):
            raise SchemaMismatch(
                "part 'y' has {} columns and {} rows; expected one column and {} rows, as in X".format(
                    len(y.columns), len(y), _row_count(x)
                )
            )
        return x, y.iloc[:, 0]

    def _transform(self, x: Any, y: Any) -> Any:
        self._check_input(x)
        if "transform" in self._hooks:
            return self._hooks.call("transform", x, self._model, y=y)
        predictor = self._predictor
        assert predictor is not None
        if hasattr(x, "columns"):
            x = align(x, predictor, refuse_unknown=self._refuse_unknown, target_name=self._target.name)
        try:
            return predictor.transform(x)
        except BaseException as exc:
            raise translate(exc, "transform", self._hooks.code_dir) from exc

    def _guarded(self, hook: str, write: Callable[[], Answer]) -> Answer:
        """Turn what user objects raise while they are written out into a failure of the hook that made them."""
        try:
            return write()
        except BaseException as exc:
            raise translate(exc, hook, self._hooks.code_dir) from exc


async def _collect(stream: Any, collector: Collector) -> None:
    async for chunk in stream:
        collector.add(chunk)


def _rules(metadata: ModelMetadata, *, output: bool) -> List[Rule]:
    raw = metadata.output_requirements if output else metadata.input_requirements
    name = "output_requirements" if output else "input_requirements"
    return parse_rules(raw, "typeSchema.{}".format(name), output=output)


def _data_part(parts: Sequence[Part]) -> Any:
    for place, part in enumerate(parts):
        if part.name == "X":
            return part, [*parts[:place], *parts[place + 1 :]]
    if not parts:
        raise EmptyBody("the body is empty; send the data to predict on")
    raise MissingPart(
        "there is no part named 'X' with the data; the request has {}".format(
            ", ".join(repr(part.name) for part in parts)
        ),
        details={"parts": [part.name for part in parts]},
    )


@contextlib.contextmanager
def _file_holding(data: bytes, filename: Optional[str]) -> Iterator[str]:
    suffix = os.path.splitext(filename or "")[1] or ".csv"
    descriptor, path = tempfile.mkstemp(suffix=suffix, prefix="backline-input-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        yield path
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _row_count(data: Any) -> int:
    shape = getattr(data, "shape", None)
    try:
        return int(shape[0]) if shape else len(data)
    except TypeError:
        raise ResultInvalid(
            "read_input_data returned {}, which has no rows; expected a DataFrame".format(type(data).__name__)
        ) from None
