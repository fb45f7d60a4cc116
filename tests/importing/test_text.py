"""Text: files, folders of them, and columns of datasets."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from generalist.errors import GeneralistError, UsageError
from generalist.importing.text import TextSource
from generalist.importing.write import import_source
from generalist.shards.reader import TaskData
from generalist.tokenization.processor import GeneralistProcessor

TEXTS = ["The first.\n", "Zweiter, mit Ümlaut.\nUnd Zeilen.\n", "第三\n"]


def texts_of(folder: Path, processor: str) -> list[str]:
    loaded = GeneralistProcessor.from_pretrained(processor)
    data = TaskData(folder, loaded)
    assert data.layout.is_document
    return [loaded.decode_text(data.tokens(number)) for number in range(len(data))]


def files(folder: Path, texts: list[str]) -> Path:
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def test_files_come_back_as_they_were(tmp_path: Path, processor: str) -> None:
    source = TextSource(str(files(tmp_path / "texts", TEXTS)))
    import_source(source, "text/own", tmp_path / "out", episodes=2, processor=processor)
    assert texts_of(tmp_path / "out/text/own", processor) == TEXTS[:2]
    import_source(source, "text/own", tmp_path / "out", processor=processor)
    assert texts_of(tmp_path / "out/text/own", processor) == TEXTS


def test_a_column_of_a_dataset(tmp_path: Path, processor: str) -> None:
    path = tmp_path / "texts.parquet"
    datasets.Dataset.from_dict({"text": TEXTS}).to_parquet(path)
    import_source(TextSource(str(path)), "text/own", tmp_path / "out", processor=processor)
    assert texts_of(tmp_path / "out/text/own", processor) == TEXTS
    with pytest.raises(UsageError, match="no column 'body'; it has text"):
        TextSource(str(path), column="body")


def test_a_long_file_becomes_several_documents(
    tmp_path: Path, processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generalist.importing.text._CHARACTERS", 100)
    text = "".join(f"line {number}\n" for number in range(50))
    path = tmp_path / "long.txt"
    path.write_text(text)
    import_source(TextSource(str(path)), "text/own", tmp_path / "out", processor=processor)
    pieces = texts_of(tmp_path / "out/text/own", processor)
    assert "".join(pieces) == text and len(pieces) > 3


def test_what_is_no_text_is_said(tmp_path: Path, processor: str) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("Ümlaut".encode("latin-1"))
    with pytest.raises(GeneralistError, match="latin.txt is not UTF-8 text"):
        import_source(TextSource(str(path)), "text/own", tmp_path / "out", processor=processor)
    with pytest.raises(UsageError, match="tasks of documents, and no others, are text/NAME"):
        import_source(TextSource(str(path)), "own/text", tmp_path / "out", processor=processor)


def test_an_empty_document_can_be_left_out(tmp_path: Path, processor: str) -> None:
    source = TextSource(str(files(tmp_path / "texts", ["a\n", "", "b\n"])))
    with pytest.raises(GeneralistError, match="episode 1: .*1.txt is empty.*--skip-bad"):
        import_source(source, "text/own", tmp_path / "out", processor=processor)
    report = import_source(source, "text/own", tmp_path / "out", skip_bad=True, processor=processor)
    assert texts_of(tmp_path / "out/text/own", processor) == ["a\n", "b\n"]
    assert (report.added, report.left_out) == (2, 1)


def test_files_that_are_no_utf_8_can_be_left_out(tmp_path: Path, processor: str) -> None:
    """Each is one document, named with what is wrong with it; the marks of editors are no text."""
    folder = files(tmp_path / "texts", ["a\n", "b\n"])
    (folder / "2-latin.txt").write_bytes("Ümlaut\n".encode("latin-1"))
    (folder / "3-wide.txt").write_text("wide\n", encoding="utf-16")
    (folder / "4-zero.txt").write_text("wide\n", encoding="utf-16-le")
    (folder / "5-pointer.txt").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "6-packed.txt").write_bytes(b"\x1f\x8b\x08\x00" + bytes([200] * 20))
    (folder / "7-mark.txt").write_text("marked\n", encoding="utf-8-sig")
    (folder / "8-page.txt").write_text("<html> is a tag\n")
    source = TextSource(str(folder))
    with pytest.raises(GeneralistError, match="episode 2: .*2-latin.txt is not UTF-8.*--skip-bad"):
        import_source(source, "text/own", tmp_path / "out", processor=processor)
    report = import_source(source, "text/own", tmp_path / "out", skip_bad=True, processor=processor)
    kept = texts_of(tmp_path / "out/text/own", processor)
    assert kept == ["a\n", "b\n", "marked\n", "<html> is a tag\n"]
    assert (report.added, report.left_out) == (4, 5)
    words = ("0xdc: convert it", "UTF-16", "zero bytes", "Git LFS pointer", "gzip: unpack")
    for reason, word in zip(report.reasons, words, strict=True):
        assert word in reason


def test_a_long_file_that_turns_bad_keeps_what_was_read(
    tmp_path: Path, processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generalist.importing.text._CHARACTERS", 20_000)
    path = tmp_path / "long.txt"
    path.write_bytes(b"a line of text\n" * 3000 + b"\xff\n")
    report = import_source(
        TextSource(str(path)), "text/own", tmp_path / "out", skip_bad=True, processor=processor
    )
    assert (report.added, report.left_out) == (2, 1)


def test_files_are_read_in_natural_order(tmp_path: Path, processor: str) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(12):
        (folder / f"part-{number}.txt").write_text(f"{number}\n")
    import_source(TextSource(str(folder)), "text/own", tmp_path / "out", processor=processor)
    kept = texts_of(tmp_path / "out/text/own", processor)
    assert kept == [f"{number}\n" for number in range(12)]


def test_a_row_without_text_is_named(tmp_path: Path, processor: str) -> None:
    path = tmp_path / "texts.parquet"
    datasets.Dataset.from_dict({"text": ["a", None, "b"]}).to_parquet(path)
    source = TextSource(str(path))
    with pytest.raises(GeneralistError, match="episode 1: text holds None .* row 1 of .*parquet"):
        import_source(source, "text/own", tmp_path / "out", processor=processor)
    report = import_source(source, "text/own", tmp_path / "out", skip_bad=True, processor=processor)
    assert (report.added, report.left_out) == (2, 1)
