import builtins

from corpusmill.corpus import progress
from corpusmill.corpus.datasets import DatasetWriter
from corpusmill.corpus.progress import Notes, Progress


def test_notes_on_finished_parts_are_read_once(tmp_path, monkeypatch):
    writer = DatasetWriter(str(tmp_path / "data"), "tokens", {})
    notes = Notes(writer.scratch("progress", "tokenize"))
    assert notes.read() == 0
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_NOTES", 0)
    opened = []

    def counted(path, *rest):
        opened.append(path)
        return builtins.open(path, *rest)

    parts = [Progress(writer, "tokenize", str(number)) for number in range(5)]
    for part in parts:
        part.add(10)
    for part in parts[:3]:
        part.finish()
    monkeypatch.setattr(progress, "open", counted, raising=False)
    assert notes.read() == 50
    assert len(opened) == 5
    assert notes.read() == 50
    assert sorted(path[-1] for path in opened[5:]) == ["3", "4"]
    monkeypatch.undo()
    parts[3].add(7)
    parts[3].finish()
    assert notes.read() == 57
