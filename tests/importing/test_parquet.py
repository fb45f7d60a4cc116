"""Parquet files as one table: what they are, whether they go together, and where a row stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generalist.errors import GeneralistError, UsageError
from generalist.importing.hub import HubSource, open_table
from generalist.importing.parquet import ParquetTable
from generalist.importing.write import import_source
from tests.importing.conftest import steps_table, write_parts

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def damaged(path: Path, how: str) -> None:
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "cut": whole[:-20], "pointer": POINTER, "text": b"no table\n",
         "footer": whole[:-200] + bytes(192) + whole[-8:], "page": b"<html>"}[how]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("empty", "is empty"),
        ("cut", "was cut short: download it again"),
        ("pointer", "is a Git LFS pointer, not the file itself: run `git lfs pull`"),
        ("text", "is of another kind"),
        ("footer", "is a damaged parquet file"),
        ("page", "is a web page"),
    ],
)
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, how: str, words: str) -> None:
    """Whichever of several it is, before anything is imported."""
    folder = write_parts(tmp_path / "data", [steps_table([number]) for number in range(3)])
    damaged(folder / "part-1.parquet", how)
    for name in (folder, folder / "part-1.parquet"):
        with pytest.raises(GeneralistError, match=f"part-1.parquet cannot be read.*{words}"):
            HubSource(str(name))


def test_a_page_damaged_within_names_the_row(tmp_path: Path, processor: str) -> None:
    path = tmp_path / "rows.parquet"
    table = steps_table([number for number in range(10) for _ in range(1000)])
    pq.write_table(table, path, row_group_size=5000, compression="zstd", use_dictionary=False)
    group = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = group.data_page_offset
    content[start + 40 : start + group.total_compressed_size] = bytes(
        group.total_compressed_size - 40
    )
    path.write_bytes(content)
    with pytest.raises(GeneralistError, match=r"rows.parquet is damaged from row \d+ on"):
        import_source(HubSource(str(path)), "own/Steps", tmp_path / "out", processor=processor)


def test_another_suffix_says_what_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("{}")
    with pytest.raises(UsageError, match=r"rows.json is not called \*.parquet"):
        open_table(str(path))


def test_rows_know_their_place(tmp_path: Path) -> None:
    folder = write_parts(tmp_path, [pa.table({"a": range(7)}), pa.table({"a": range(7, 12)})])
    files = [folder / "part-0.parquet", folder / "part-1.parquet"]
    for first in range(13):
        for rows in (1, 3, 100):
            found = []
            for each in ParquetTable("t", files).slices(["a"], first=first, rows=rows):
                assert len(each) <= rows
                for row in range(len(each)):
                    found.append((each.table["a"][row].as_py(), each.place(row)))
            whole = [(n, f"row {n if n < 7 else n - 7} of {files[n >= 7]}") for n in range(12)]
            assert found == whole[first:]


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (pa.int32(), pa.int64(), "int64"),
        (pa.int64(), pa.float64(), "double"),
        (pa.float32(), pa.float64(), "double"),
        (pa.list_(pa.float32()), pa.large_list(pa.float64()), "large_list<element: double>"),
    ],
)
def test_types_of_which_one_holds_the_other_go_together(
    tmp_path: Path, first: Any, second: Any, kind: str
) -> None:
    values = [[1, 2]] if "list" in kind else [1]
    tables = [pa.table({"a": pa.array(values, each)}) for each in (first, second)]
    folder = write_parts(tmp_path, tables)
    table = open_table(str(folder))
    slices = list(table.slices(["a"], first=0, rows=10))
    assert [each.table["a"].to_pylist() for each in slices] == [values, values]
    assert {str(each.table.schema.field("a").type) for each in slices} == {kind}


def test_a_file_of_other_columns_or_types_is_named(tmp_path: Path, processor: str) -> None:
    tables = [steps_table([0, 0]), steps_table([1, 1]).drop_columns("action")]
    source = HubSource(str(write_parts(tmp_path / "lacks", tables)))
    words = "part-1.parquet has no column 'action', which .*part-0.parquet has"
    with pytest.raises(GeneralistError, match=words):
        import_source(source, "own/Steps", tmp_path / "out", processor=processor)
    tables = [steps_table([0, 0]), steps_table(["a", "a"])]
    source = HubSource(str(write_parts(tmp_path / "words", tables)))
    words = "'episode' is of type int64 in .*part-0.parquet, but of type string in .*part-1.parquet"
    with pytest.raises(GeneralistError, match=words):
        import_source(source, "own/Steps", tmp_path / "out", processor=processor)


def test_a_column_that_the_first_file_lacks_is_not_overlooked(
    tmp_path: Path, processor: str
) -> None:
    tables = [steps_table([0, 0]).drop_columns("reward"), steps_table([1, 1])]
    source = HubSource(str(write_parts(tmp_path / "data", tables)))
    with pytest.raises(GeneralistError, match="part-0.parquet has no column 'reward'"):
        import_source(source, "own/Steps", tmp_path / "out", processor=processor)


def test_files_without_rows_and_other_columns_do_not_matter(tmp_path: Path, processor: str) -> None:
    extra = steps_table([1, 1]).append_column("note", pa.array(["x", None]))
    tables = [steps_table([0, 0]), steps_table([0]).slice(0, 0).drop_columns("action"), extra]
    source = HubSource(str(write_parts(tmp_path / "data", tables)))
    report = import_source(source, "own/Steps", tmp_path / "out", processor=processor)
    assert report.episodes == 2
    empty = write_parts(tmp_path / "empty", [steps_table([0]).slice(0, 0)])
    with pytest.raises(GeneralistError, match="holds no rows"):
        HubSource(str(empty))


def test_the_values_come_through(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 3)
    table = steps_table([0] * 10).set_column(0, "observation", column)
    (load,) = HubSource(str(write_parts(tmp_path / "data", [table]))).recordings(0)
    np.testing.assert_array_equal(load().observations, values)
