"""Puts the pieces of Arrow and Parquet output together, one at a time, with one schema for all."""

from __future__ import annotations

from typing import Any, Dict, List

from ..codecs._libraries import pyarrow_for
from ..codecs.formats import PARQUET
from ..errors import ReportedError


def assemble(job: Dict[str, Any]) -> Dict[str, Any]:
    """Write ``output`` of the Arrow streams that lie in ``input`` at ``pieces``, a list of [start, end].

    A column that is of integers in one piece and of floats in another becomes one of floats, as if it had been
    written in one go; columns that share no type become text. Raises ``ReportedError``.
    """
    pyarrow = pyarrow_for("writing Arrow and Parquet", answering=True)
    try:
        with pyarrow.OSFile(job["input"]) as source:
            schema = _common_schema(pyarrow, source, job["pieces"])
            with pyarrow.OSFile(job["output"], "wb") as sink, _writer(pyarrow, sink, schema, job) as writer:
                for start, end in job["pieces"]:
                    writer.write_table(_cast(pyarrow, _table(pyarrow, source, start, end), schema))
    except (OSError, pyarrow.ArrowException) as exc:
        raise ReportedError("{} cannot be written: {}".format(job["output"], exc)) from exc
    return {}


def _writer(pyarrow: Any, sink: Any, schema: Any, job: Dict[str, Any]) -> Any:
    if job["output_type"] != PARQUET:
        return pyarrow.ipc.new_stream(sink, schema)
    from pyarrow import parquet

    return parquet.ParquetWriter(sink, schema)


def _table(pyarrow: Any, source: Any, start: int, end: int) -> Any:
    source.seek(start)
    return pyarrow.ipc.open_stream(source.read(end - start)).read_all()


def _common_schema(pyarrow: Any, source: Any, pieces: List[List[int]]) -> Any:
    schemas: List[Any] = []
    for start, _ in pieces:
        source.seek(start)
        schema = pyarrow.ipc.open_stream(source).schema
        if schema not in schemas:
            schemas.append(schema)
    if len(schemas) == 1:
        return schemas[0]
    names = schemas[0].names
    if any(schema.names != names for schema in schemas):
        raise ReportedError("the model returned other columns for some rows than for others: {}".format(schemas))
    return pyarrow.schema([(name, _common(pyarrow, [schema.field(name).type for schema in schemas])) for name in names])


def _common(pyarrow: Any, kinds: List[Any]) -> Any:
    types = pyarrow.types
    kinds = [kind for place, kind in enumerate(kinds) if not types.is_null(kind) and kind not in kinds[:place]]
    if len(kinds) == 1:
        return kinds[0]
    if not kinds:
        return pyarrow.null()
    if all(types.is_integer(kind) or types.is_floating(kind) for kind in kinds):
        return pyarrow.int64() if all(types.is_integer(kind) for kind in kinds) else pyarrow.float64()
    return pyarrow.string()


def _cast(pyarrow: Any, table: Any, schema: Any) -> Any:
    if table.schema == schema:
        return table
    columns = []
    for column, field in zip(table.columns, schema):
        if column.type != field.type and pyarrow.types.is_string(field.type):
            values = [None if value is None else str(value) for value in column.to_pylist()]
            columns.append(pyarrow.array(values, type=field.type))
        else:
            columns.append(column.cast(field.type))
    return pyarrow.Table.from_arrays(columns, schema=schema)
