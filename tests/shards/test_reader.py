"""Damage of every kind is noticed, named, and can be skipped with a count."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.shards.manifest import Manifest, Member, ShardEntry
from generalist.shards.reader import DamagedShard, TaskData, dataset_folders
from generalist.shards.validate import validate
from generalist.vocabulary import Vocabulary
from tests.dataset_folders import VOCABULARY


def member(folder: Path, shard: int, sample: int, suffix: str) -> tuple[Path, Member]:
    entry: ShardEntry = Manifest.read(folder).shards[shard]
    name = f"{shard:05d}-{sample:04d}.{suffix}"
    return folder / entry.name, next(m for m in entry.members if m.name == name)


def truncate(path: Path, size: int) -> None:
    with open(path, "r+b") as file:
        file.truncate(size)


def overwrite(path: Path, offset: int, payload: bytes) -> None:
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(payload)


def truncated_at_a_member_boundary(folder: Path) -> None:
    path, first = member(folder, 1, 1, "rewards.npy")
    truncate(path, first.offset - 512)


def truncated_inside_a_payload(folder: Path) -> None:
    path, tokens = member(folder, 1, 1, "tokens.npy")
    truncate(path, tokens.offset + tokens.size // 2)


def broken_tar_header(folder: Path) -> None:
    path, tokens = member(folder, 1, 1, "tokens.npy")
    overwrite(path, tokens.offset - 512 + 100, b"\xff" * 48)


def broken_npy_header(folder: Path) -> None:
    path, tokens = member(folder, 1, 1, "tokens.npy")
    overwrite(path, tokens.offset, b"\x00" * 20)


def flipped_bit(folder: Path) -> None:
    path, tokens = member(folder, 1, 1, "tokens.npy")
    where = tokens.offset + tokens.size - 100
    raw = path.read_bytes()[where]
    overwrite(path, where, bytes([raw ^ 4]))


def flipped_bit_in_the_records(folder: Path) -> None:
    path, records = member(folder, 1, 1, "episodes.json")
    where = records.offset + 20
    raw = path.read_bytes()[where]
    overwrite(path, where, bytes([raw ^ 4]))


def repack(path: Path, keep: Callable[[str], bool]) -> None:
    with tarfile.open(path) as tar:
        members = [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w:", format=tarfile.USTAR_FORMAT) as tar:
        for info, payload in members:
            if keep(info.name):
                tar.addfile(info, io.BytesIO(payload))


def missing_member(folder: Path) -> None:
    repack(folder / "shard-00001.tar", lambda name: name != "00001-0001.tokens.npy")


def half_written_sample(folder: Path) -> None:
    """As a writer without rename and manifest would leave it: some members, a valid tar."""
    wanted = ("00001-0000", "00001-0001.episodes.json", "00001-0001.labels.npy")
    repack(folder / "shard-00001.tar", lambda name: name.startswith(wanted))


DAMAGE = [
    truncated_at_a_member_boundary,
    truncated_inside_a_payload,
    broken_tar_header,
    broken_npy_header,
    flipped_bit,
    flipped_bit_in_the_records,
    missing_member,
    half_written_sample,
]


def read_everything(data: TaskData) -> None:
    for i in range(len(data)):
        data.tokens(i), data.rewards(i), data.labels(i)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_an_error_that_names_shard_and_sample(folder: Path, damage) -> None:
    damage(folder)
    with pytest.raises(DamagedShard) as error:
        read_everything(TaskData(folder))
    assert "shard-00001.tar" in str(error.value) and "sample 00001-0001" in str(error.value)
    assert "--skip-damaged" in str(error.value)


@pytest.mark.parametrize("damage", DAMAGE)
def test_skipping_goes_on_with_the_rest_and_counts(folder: Path, damage) -> None:
    whole = TaskData(folder)
    expected = [whole.tokens(i).tolist() for i in range(len(whole)) if i < 12]
    damage(folder)
    data = TaskData(folder, skip_damaged=True)
    read_everything(data)
    assert len(data.damaged) == 1 and len(data) == 12
    assert [data.tokens(i).tolist() for i in range(len(data))] == expected


@pytest.mark.parametrize("damage", DAMAGE)
def test_validate_finds_it(folder: Path, damage) -> None:
    assert validate(folder).ok
    damage(folder)
    report = validate(folder)
    assert not report.ok and len(report.problems) == 1
    assert report.tasks[0].damaged_samples == 1 and report.tasks[0].episodes == 12
    assert "00001-0001" in report.problems[0]
    assert json.loads(json.dumps(report.to_dict()))["ok"] is False
    assert validate(folder, skip_damaged=True).ok


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "shard-00001.tar").unlink()
    with pytest.raises(DamagedShard, match=r"shard-00001\.tar"):
        TaskData(folder)
    data = TaskData(folder, skip_damaged=True)
    assert len(data.damaged) == 1 and len(data) == 8


def test_an_empty_shard_is_noticed(folder: Path) -> None:
    truncate(folder / "shard-00000.tar", 0)
    with pytest.raises(DamagedShard, match=r"shard-00000\.tar"):
        TaskData(folder)


def test_bytes_after_the_end_are_noticed(folder: Path) -> None:
    with open(folder / "shard-00000.tar", "ab") as file:
        file.write(b"\0" * 512)
    with pytest.raises(DamagedShard, match="the manifest says"):
        TaskData(folder)


def test_a_flipped_bit_in_padding_is_found_by_validate(folder: Path) -> None:
    path, tokens = member(folder, 0, 0, "tokens.npy")
    overwrite(path, tokens.offset + tokens.size + 1, b"\x01")
    assert "sha256" in validate(folder).problems[0]


@pytest.mark.parametrize("name", ["manifest.json", "dataset.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", None])
def test_damaged_json_is_one_sentence(folder: Path, name: str, content: str | None) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(GeneralistError, match=name):
        TaskData(folder)


class Processor:
    def __init__(self, vocabulary: Vocabulary, fingerprint: str) -> None:
        self.vocabulary, self.fingerprint = vocabulary, fingerprint

    def fingerprint_under(self, vocabulary: Vocabulary) -> str:
        return self.fingerprint.replace("wider-", "")


def test_another_vocabulary_or_processor_is_an_error_naming_both(folder: Path) -> None:
    TaskData(folder, Processor(VOCABULARY, "processor-1"))
    other = Vocabulary([*((r.name, r.size) for r in VOCABULARY)][:-1] + [("mouse", 64)])
    with pytest.raises(GeneralistError) as error:
        TaskData(folder, Processor(other, "processor-1"))
    assert other.fingerprint in str(error.value) and VOCABULARY.fingerprint in str(error.value)
    with pytest.raises(GeneralistError) as error:
        TaskData(folder, Processor(VOCABULARY, "processor-2"))
    assert "processor-1" in str(error.value) and "processor-2" in str(error.value)


def test_data_of_before_a_range_was_appended_are_read(folder: Path) -> None:
    wider = VOCABULARY.append("mouse", 64)
    assert len(TaskData(folder, Processor(wider, "wider-processor-1"))) == len(TaskData(folder))
    with pytest.raises(GeneralistError, match="processor-2"):
        TaskData(folder, Processor(wider, "wider-processor-2"))


def test_pickles_are_never_loaded(folder: Path, tmp_path: Path) -> None:
    """An object array in place of tokens is refused by its header, before any unpickling."""
    path, tokens = member(folder, 1, 1, "tokens.npy")
    buffer = io.BytesIO()
    np.save(buffer, np.array([open], dtype=object), allow_pickle=True)
    overwrite(path, tokens.offset, buffer.getvalue()[: tokens.size])
    with pytest.raises(DamagedShard, match="00001-0001"):
        TaskData(folder)


def test_reading_maps_the_file_and_copies_nothing(folder: Path) -> None:
    data = TaskData(folder)
    tokens = data.tokens(3)
    assert not tokens.flags.owndata and not tokens.flags.writeable
    assert np.shares_memory(tokens, data.samples[0].tokens)


def test_a_reader_can_be_pickled(folder: Path) -> None:
    data = TaskData(folder)
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.tokens(9), data.tokens(9))


def test_no_dataset_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(GeneralistError, match="generalist collect"):
        dataset_folders(tmp_path)


def names_below(root: Path) -> list[str]:
    return [str(folder.relative_to(root)) for folder in dataset_folders(root)]


def test_linked_folders_are_followed_and_each_dataset_is_found_once(
    folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "gym").mkdir(parents=True)
    (root / "gym" / "Linked-v0").symlink_to(folder)
    assert names_below(root) == ["gym/Linked-v0"]
    assert len(TaskData(dataset_folders(root)[0])) == 16
    (root / "family").symlink_to(folder.parent)  # the same one by another way
    (root / "up").symlink_to(root)
    (root / "gym" / "round").symlink_to(root / "gym")
    assert names_below(root) == ["family/Toy-v0"]
    shutil.copytree(folder, root / "gym" / "Whole-v0")
    assert names_below(root) == ["family/Toy-v0", "gym/Whole-v0"]
    linked_root = tmp_path / "linked"
    linked_root.symlink_to(root)
    assert names_below(linked_root) == names_below(root)


def test_what_cannot_be_followed_is_named(folder: Path, tmp_path: Path) -> None:
    lost = tmp_path / "gym" / "Lost-v0"
    lost.symlink_to(tmp_path / "gone")
    with pytest.raises(GeneralistError, match=r"Lost-v0 is a link to .*gone, which is not there"):
        dataset_folders(tmp_path)
    lost.unlink()
    lost.symlink_to(lost)  # a link to itself
    with pytest.raises(GeneralistError, match="Lost-v0 is a link"):
        dataset_folders(tmp_path)
    lost.unlink()
    (folder / "notes").symlink_to(tmp_path / "gone")  # within a dataset the manifest counts
    assert dataset_folders(tmp_path) == [folder]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_named(folder: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    with pytest.raises(GeneralistError, match=f"{closed} cannot be listed"):
        dataset_folders(tmp_path)
