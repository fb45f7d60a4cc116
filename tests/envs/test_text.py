import pytest

from generalist import envs
from generalist.envs.text import documents
from generalist.errors import UsageError


def test_documents_are_real_split_once_and_in_a_fixed_order():
    train, heldout = documents("text/pydoc"), documents("text/pydoc", "heldout")
    assert train == documents("text/pydoc", "train")
    assert not set(train) & set(heldout)
    assert 0.03 < len(heldout) / (len(train) + len(heldout)) < 0.2
    assert sum(map(len, train)) > 1_000_000
    assert any("lambda" in text for text in train)


def test_a_document_task_is_registered_but_cannot_be_made():
    assert envs.is_document_task("text/pydoc")
    assert "text/pydoc" in [task.name for task in envs.list_tasks()]
    with pytest.raises(UsageError, match="documents, not an environment"):
        envs.make("text/pydoc")


def test_an_unknown_collection_is_refused():
    with pytest.raises(UsageError, match="text/pydoc"):
        documents("text/unknown")
