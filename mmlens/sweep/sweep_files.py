"""The files of a sweep: tables as Parquet, Scores as safetensors, each written atomically.

A column of labels (`Neuron`, `Patch`, `Token`, ...) becomes a struct of their fields, so that other
programs read `neuron.layer`; here it is read back as labels. The same content gives the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmlens.sweep.record import SweepError
from mmlens.values.packed_labels import LABELS, pack_labels, restored, unpack_labels
from mmlens.values.scores import Scores
from mmlens.values.whole_files import spelled

KIND = "kind"
"""The field of a label's struct with the name of its class."""


def to_arrow(sample: str, table: pd.DataFrame, name: str) -> pa.Table:
    """The rows of one sample, with a first column `sample`.

    Raises:
        SweepError: the table has such a column, or one of values that Parquet cannot hold.
    """
    if "sample" in table.columns:
        raise SweepError(
            f"The table {name!r} has a column 'sample', which a sweep adds: rename it."
        )
    columns: dict[str, pa.Array] = {"sample": pa.array([sample] * len(table), pa.large_string())}
    for column in table.columns:
        cells: Any = table[column]
        try:
            columns[str(column)] = _array(cells)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            kinds = sorted({type(cell).__name__ for cell in cells})
            raise SweepError(
                f"The column {column!r} of the table {name!r} holds {', '.join(kinds)}, which"
                " Parquet cannot: give numbers, words, lists, Neuron, Head, Patch or Token."
            ) from None
    return pa.table(columns)


def _array(cells: pd.Series) -> pa.Array:
    if cells.dtype == object and any(type(cell).__name__ in LABELS for cell in cells):
        return pa.array([_struct(cell) for cell in cells])
    array: Any = pa.Array.from_pandas(cells)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _struct(label: Any) -> Any:
    kind = type(label).__name__
    return {KIND: kind, **vars(label)} if kind in LABELS else label


def table_bytes(tables: Sequence[pa.Table]) -> bytes:
    """The rows of several samples as one Parquet file."""
    whole = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    buffer = io.BytesIO()
    pq.write_table(whole, buffer, compression="zstd")
    return buffer.getvalue()


def read_tables(paths: Sequence[Path]) -> pd.DataFrame:
    """Parquet files of `table_bytes` as one DataFrame, with labels restored."""
    # from their bytes: pyarrow takes no path whose name is not in UTF-8
    parts = [pq.read_table(io.BytesIO(path.read_bytes())) for path in paths]
    whole = pa.concat_tables(parts, promote_options="permissive")
    columns = {name: _cells(whole.column(name)) for name in whole.column_names}
    return pd.DataFrame(columns)


def _cells(column: pa.ChunkedArray) -> Any:
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index(KIND) >= 0:
        return pd.Series([_label(cell) for cell in column.to_pylist()], dtype=object)
    if pa.types.is_nested(kind):  # pandas would read arrays where lists were written
        return pd.Series(column.to_pylist(), dtype=object)
    return column.to_pandas()


def _label(fields: Mapping[str, Any] | None) -> Any:
    if fields is None:
        return None
    return restored(fields[KIND], {name: at for name, at in fields.items() if name != KIND})


def tensor_bytes(scores: Mapping[str, Scores]) -> bytes:
    """The Scores of several samples as one safetensors file, one tensor per sample."""
    from safetensors.torch import save

    tensors = {id: one.values.detach().cpu().clone().contiguous() for id, one in scores.items()}
    meta = {
        id: {
            "axes": one.axes,
            "labels": {axis: pack_labels(one.labels.get(axis)) for axis in one.axes},
            "about": dict(one.about),
        }
        for id, one in scores.items()
    }
    # one entry: safetensors does not keep the order of several
    return save(tensors, {"scores": json.dumps(meta, default=str)})


def read_scores(path: Path) -> dict[str, Scores]:
    """The Scores of `tensor_bytes`, in their order."""
    from safetensors import safe_open

    with spelled(path) as real, safe_open(real, framework="pt") as file:
        meta = json.loads(file.metadata()["scores"])
        return {
            id: Scores(
                file.get_tensor(id),
                tuple(told["axes"]),
                {axis: unpack_labels(labels) for axis, labels in told["labels"].items()},
                told["about"],
            )
            for id, told in meta.items()
        }
