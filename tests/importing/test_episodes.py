"""Which rows make an episode: ids of all kinds, over files, and in the order of their steps."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.errors import GeneralistError
from generalist.importing.hub import HubSource
from generalist.importing.rows import Columns
from generalist.importing.write import import_source
from tests.importing.conftest import steps_table, write_parts


def found(folder: Path, columns: Columns | None = None) -> list[list[float]]:
    """What was observed in each episode."""
    loads = HubSource(str(folder), columns or Columns()).recordings(0)
    return [load().observations[:, 0].tolist() for load in loads]


def test_part_2_comes_before_part_10(tmp_path: Path) -> None:
    tables = [steps_table([0] * 10, start=10 * part) for part in range(12)]
    assert found(write_parts(tmp_path, tables)) == [list(range(120))]
    tables = [steps_table([0] * 10, start=10 * part, step=range(10 * part, 10 * part + 10))
              for part in range(12)]  # fmt: skip
    assert found(write_parts(tmp_path, tables)) == [list(range(120))]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_rows_without_an_episode_are_refused(tmp_path: Path, missing: Any) -> None:
    """With skip_bad too: nothing says whose rows they are."""
    first = steps_table(pa.array([0.0, 0.0, 1.0]))
    second = steps_table(pa.array([1.0, 2.0, missing, missing], from_pandas=missing is None))
    folder = write_parts(tmp_path / "data", [first, second])
    words = "^row 2 of .*part-1.parquet does not say which episode it belongs to"
    for skip_bad in (False, True):
        with pytest.raises(GeneralistError, match=words):
            import_source(HubSource(str(folder)), "own/T", tmp_path / "out", skip_bad=skip_bad)


def test_a_column_of_nothing_is_no_column_of_episodes(tmp_path: Path) -> None:
    folder = write_parts(tmp_path, [steps_table(pa.nulls(3))])
    with pytest.raises(GeneralistError, match="row 0 of .* does not say which episode"):
        found(folder)


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["b", "b", "a", "a", "a", "ü 2"]),
        pa.array(["b", "b", "a", "a", "a", "c"]).dictionary_encode(),
        pa.array(["b", "b", "a", "a", "a", "c"], pa.large_string()),
        pa.array([7, 7, 3, 3, 3, 9], pa.uint8()),
        pa.array([0.5, 0.5, 0.25, 0.25, 0.25, 2.0]),
        pa.array([True, True, False, False, False, False]),
        pa.array([datetime.date(2026, 1, day) for day in (2, 2, 1, 1, 1, 3)]),
        pa.array([b"b", b"b", b"a", b"a", b"a", b"c"]),
    ],
    ids=lambda ids: str(ids.type),
)
def test_ids_may_be_words_categories_and_numbers(tmp_path: Path, ids: Any) -> None:
    last = [[5.0]] if ids.type != pa.bool_() else []
    middle = [2.0, 3.0, 4.0] if last else [2.0, 3.0, 4.0, 5.0]
    assert found(write_parts(tmp_path, [steps_table(ids)])) == [[0.0, 1.0], middle, *last]


def test_categories_whose_numbers_differ_from_file_to_file(tmp_path: Path) -> None:
    words = (["a", "a", "b"], ["b", "c"])
    tables = [steps_table(pa.array(each).dictionary_encode(), start=3 * i)
              for i, each in enumerate(words)]  # fmt: skip
    assert found(write_parts(tmp_path, tables)) == [[0.0, 1.0], [2.0, 3.0], [4.0]]


def test_ids_are_no_lists(tmp_path: Path) -> None:
    folder = write_parts(tmp_path, [steps_table(pa.array([[0], [0], [1]]))])
    with pytest.raises(GeneralistError, match="named by a number or a word"):
        found(folder)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.lists(st.integers(0, 40), max_size=4),
    st.booleans(),
)
def test_files_may_be_cut_anywhere(lengths: list[int], cuts: list[int], counted: bool) -> None:
    """However the rows are spread over files, the episodes are the same."""
    import tempfile

    ids = np.repeat(np.arange(len(lengths)), lengths)
    steps = np.concatenate([np.arange(length) for length in lengths])
    table = steps_table(ids, **({"frame_index": steps} if counted else {}))
    edges = sorted({0, len(ids), *(cut for cut in cuts if cut < len(ids))})
    parts = [table.slice(a, b - a) for a, b in zip(edges, edges[1:], strict=False)]
    ends = np.cumsum(lengths)
    whole = [list(range(end - n, end)) for end, n in zip(ends, lengths, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        assert found(write_parts(Path(folder) / "data", parts)) == whole


NUMBERS = {
    "episodes anew, no counter": ([[0, 0, 1], [0, 0, 1]], None, 4),
    "episodes anew, counted": ([[0, 0, 1], [0, 0, 1]], [[0, 1, 0], [0, 1, 0]], 4),
    "one episode a file, counted": ([[0, 0], [0, 0], [0]], [[0, 1], [0, 1], [0]], 3),
    "one episode over files": ([[0, 0], [0, 0], [0]], [[0, 1], [2, 3], [4]], 1),
    "one counter of all rows": ([[0, 0, 1], [0, 0, 1]], [[0, 1, 2], [3, 4, 5]], 4),
    "the last goes on": ([[0, 1], [1, 2]], [[0, 0], [1, 0]], 3),
    "the last is counted anew": ([[0, 1], [1, 2]], [[0, 0], [0, 0]], 4),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_file_that_numbers_anew_holds_other_episodes(tmp_path: Path, name: str) -> None:
    ids, counts, episodes = NUMBERS[name]
    columns = [{"frame_index": each} for each in counts] if counts else [{}, {}]
    tables = [steps_table(i, **c) for i, c in zip(ids, columns, strict=True)]
    assert len(found(write_parts(tmp_path, tables))) == episodes


def test_an_episode_that_ended_does_not_go_on(tmp_path: Path) -> None:
    tables = [steps_table([0, 0], done=[False, True]), steps_table([0, 0], done=[False, True])]
    assert len(found(write_parts(tmp_path, tables))) == 2
    tables = [steps_table([0, 0], done=[False, False]), steps_table([0, 0], done=[False, True])]
    assert len(found(write_parts(tmp_path, tables))) == 1


def test_what_is_guessed_is_said(tmp_path: Path, processor: str) -> None:
    folder = write_parts(tmp_path / "data", [steps_table([0, 0]), steps_table([0, 0])])
    report = import_source(HubSource(str(folder)), "own/T", tmp_path / "out", processor=processor)
    assert report.episodes == 1
    (note,) = [note for note in report.notes if "counts the steps" in note]
    assert "first at row 0 of" in note and "part-1.parquet" in note


def test_rows_that_do_not_stand_together_name_both_places(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "one", [steps_table([0]), steps_table([1, 2, 1])])
    words = (
        "episode 1 do not stand together: they end in row 0 of .*part-1.parquet and go on in row 2"
    )
    with pytest.raises(GeneralistError, match=words):
        found(folder)
    tables = [steps_table([0, 0, 1], step=[0, 1, 0]), steps_table([0, 1], step=[2, 1])]
    words = (
        "episode 0 do not stand together: they end in row 1 of .*part-0.parquet and go on in row 0"
    )
    with pytest.raises(GeneralistError, match=words):
        found(write_parts(tmp_path / "two", tables))


@pytest.mark.parametrize(
    ("name", "counts", "place"),
    [
        ("frame_index", [0, 1, 2, 0, 2, 1], "frame_index does not rise at step 2, row 5"),
        ("step", [0, 1, 1, 0, 1, 2], "step does not rise at step 2, row 2"),
        ("index", [5, 4, 3, 2, 1, 0], "index does not rise at step 1, row 1"),
        ("timestamp", [0.0, 0.1, 0.1, 0.3, 0.2, 0.4], "timestamp does not rise at step 1, row 4"),
        ("frame_index", [0, None, 2, 0, 1, 2], "frame_index does not rise at step 1, row 1"),
    ],
)
def test_steps_out_of_order_name_file_and_row(
    tmp_path: Path, processor: str, name: str, counts: list, place: str
) -> None:
    folder = write_parts(tmp_path / "data", [steps_table([0, 0, 0, 1, 1, 1], **{name: counts})])
    with pytest.raises(GeneralistError, match=f"{place} of .*part-0.parquet"):
        import_source(HubSource(str(folder)), "own/T", tmp_path / "out", processor=processor)
    if name == "index":
        return
    report = import_source(
        HubSource(str(folder)), "own/T", tmp_path / "out", skip_bad=True, processor=processor
    )
    assert (report.episodes, report.left_out) == (1, 1)


def test_counters_of_other_kinds(tmp_path: Path) -> None:
    """Dates rise like numbers; words count nothing; a column with a role is no counter."""
    dates = pa.array([datetime.datetime(2026, 1, day) for day in (1, 3, 2)])
    with pytest.raises(GeneralistError, match="timestamp does not rise at step 2"):
        found(write_parts(tmp_path / "dates", [steps_table([0, 0, 0], timestamp=dates)]))
    table = steps_table([0, 0, 0], timestamp=["b", "c", "a"], index=[None, None, None])
    assert found(write_parts(tmp_path / "words", [table])) == [[0.0, 1.0, 2.0]]
    table = steps_table([0, 0, 0], step=[2, 1, 0])
    columns = Columns(observation=("observation",), action=("step",))
    assert found(write_parts(tmp_path / "role", [table]), columns) == [[0.0, 1.0, 2.0]]


def test_the_lists_of_an_episode_are_counted_too(tmp_path: Path) -> None:
    table = pa.table({
        "observations": [[[0.0], [1.0]], [[0.0], [1.0]]],
        "actions": [[0, 1], [0, 1]],
        "rewards": [[0.0, 0.0], [0.0, 0.0]],
        "frame_index": [[0, 1], [1, 0]],
    })  # fmt: skip
    first, second = HubSource(str(write_parts(tmp_path, [table]))).recordings(0)
    first()
    with pytest.raises(GeneralistError, match="at step 1, row 1 of .*part-0.parquet: it is 1, 0"):
        second()
