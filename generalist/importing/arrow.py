"""Columns of Arrow tables as numpy arrays; what may be pickled stays closed."""

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


def to_tree(values: Any, name: str) -> Any:
    """A column (T values) as a (T, ...) array, EncodedFrames, or a dict of these for a struct.

    Raises GeneralistError for values that are missing, rows of differing lengths, and raw bytes.
    """
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if values.null_count:
        step = values.is_null().index(True).as_py()
        raise GeneralistError(f"{name} has no value at step {step}.")
    kind = values.type
    if is_list(kind):
        return _stacked(values, name)
    if pa.types.is_struct(kind):
        fields = {kind.field(i).name for i in range(kind.num_fields)}
        if "bytes" in fields and fields <= _PICTURE:
            return _pictures(values, name)
        return {field: to_tree(values.field(field), f"{name}/{field}") for field in sorted(fields)}
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise GeneralistError(
            f"{name} holds raw bytes, which may be pickled and are not opened; numbers are needed."
        )
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raise GeneralistError(f"{name} holds text, where numbers are needed.")
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in "biuf":
        raise GeneralistError(f"{name} holds values of type {kind}, where numbers are needed.")
    return array


def to_text(values: Any, name: str) -> str | None:
    """The one text of a column that says the same at every step; None where it has none."""
    texts = set(values.unique().to_pylist())
    if len(texts) > 1:
        raise GeneralistError(
            f"{name} changes within the episode; an instruction stays the same throughout."
        )
    text = next(iter(texts), None)
    if text is not None and not isinstance(text, str):
        raise GeneralistError(f"{name} holds {type(text).__name__}s, where text is needed.")
    return text


def _plain(kind: Any) -> Any:
    import pyarrow as pa

    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _stacked(values: Any, name: str) -> np.ndarray:
    import pyarrow.compute as pc

    lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
    different = np.flatnonzero(lengths != lengths[:1])
    if len(different):
        step = different[0]
        raise GeneralistError(
            f"{name} has {lengths[step]} elements at step {step}, {lengths[0]} before it."
        )
    inner = to_tree(values.flatten(), name)
    if not isinstance(inner, np.ndarray):
        raise GeneralistError(f"{name} holds lists of pictures or records, which have no layout.")
    size = int(lengths[0]) if len(lengths) else 0
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
