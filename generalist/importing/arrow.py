"""Columns of Arrow tables as numpy arrays; what may be pickled stays closed.

Legend: T = steps of a recording.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from generalist.errors import GeneralistError
from generalist.importing.source import EncodedFrames

_PICTURE = {"bytes", "path"}  # how Hugging Face's `datasets` stores a picture


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is one of lists, of whatever lengths."""
    import pyarrow as pa

    kind = _plain(kind)
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def is_number(kind: Any) -> bool:
    """Whether an Arrow type is one of numbers or flags, or of lists of them."""
    import pyarrow as pa

    while is_list(kind):
        kind = _plain(kind).value_type
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(test(kind) for test in tests)


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is one of strings, of categories of strings too."""
    import pyarrow as pa

    kind = _plain(kind)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def plain_array(values: Any) -> Any:
    """One pyarrow.Array of a column: chunks joined, categories and extensions as what they hold."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # of types that cannot be joined
        values = pa.concat_arrays(values.chunks)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def to_tree(values: Any, name: str, *, per_step: int = 1) -> Any:
    """A column (T values) as a (T, ...) array, EncodedFrames, or a dict of these for a struct.

    per_step: how many of the values make a step, for messages.

    Raises GeneralistError for values that are missing, rows of differing lengths, and raw bytes.
    """
    import pyarrow as pa

    values = plain_array(values)
    if values.null_count:
        step = values.is_null().index(True).as_py() // per_step
        raise GeneralistError(f"{name} has no value at step {step}.")
    kind = values.type
    if is_list(kind):
        return _stacked(values, name, per_step)
    if pa.types.is_struct(kind):
        fields = {kind.field(i).name for i in range(kind.num_fields)}
        if "bytes" in fields and fields <= _PICTURE:
            return _pictures(values, name)
        return {
            field: to_tree(values.field(field), f"{name}/{field}", per_step=per_step)
            for field in sorted(fields)
        }
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise GeneralistError(
            f"{name} holds raw bytes, which may be pickled and are not opened; numbers are needed."
        )
    if is_text(kind):
        raise GeneralistError(f"{name} holds text, where numbers are needed.")
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in "biuf":
        raise GeneralistError(f"{name} holds values of type {kind}, where numbers are needed.")
    return array


def to_text(values: Any, name: str) -> str | None:
    """The one text of a column that says the same at every step; None where it has none."""
    import pyarrow as pa

    values = plain_array(values)
    if pa.types.is_null(values.type):
        return None
    if not is_text(values.type):
        raise GeneralistError(f"{name} holds values of type {values.type}, where text is needed.")
    texts = set(values.unique().to_pylist())
    if len(texts) > 1:
        raise GeneralistError(
            f"{name} changes within the episode; an instruction stays the same throughout."
        )
    return next(iter(texts), None)


def _plain(kind: Any) -> Any:
    import pyarrow as pa

    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _stacked(values: Any, name: str, per_step: int) -> np.ndarray:
    import pyarrow.compute as pc

    lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
    different = np.flatnonzero(lengths != lengths[:1])
    if len(different):
        row = different[0]
        raise GeneralistError(
            f"{name} has {lengths[row]} elements at step {row // per_step}, {lengths[0]} before it."
        )
    size = int(lengths[0]) if len(lengths) else 0
    inner = to_tree(values.flatten(), name, per_step=max(1, per_step * size))
    if not isinstance(inner, np.ndarray):
        raise GeneralistError(f"{name} holds lists of pictures or records, which have no layout.")
    return inner.reshape(len(values), size, *inner.shape[1:])


def _pictures(values: Any, name: str) -> EncodedFrames:
    files = values.field("bytes").to_pylist()
    for step, content in enumerate(files):
        if content is None:
            raise GeneralistError(
                f"{name} names a file in place of its picture at step {step}; embed the pictures "
                "(`datasets` does when it writes parquet)."
            )
    return EncodedFrames(files)
