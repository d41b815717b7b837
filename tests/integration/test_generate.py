"""`corpusmill generate`: models of all sorts of ids, beside a loop without cache and streams."""

import json

import numpy as np
import pytest
import torch

from corpusmill.commands import cli
from corpusmill.trainer.generate import Reader, choose, generate
from corpusmill.trainer.opening import open_model
from corpusmill.trainer.options import GenerateOptions
from corpusmill.trainer.texts import open_texts
from tests.integration.conftest import SENTENCES

KINDS = ("bytes", "new-end", "own-end", "sentencepiece", "codebook", "raw", "subword")


@torch.no_grad()
def logits_by_definition(model, ids):
    return (model(torch.tensor([ids])) @ model.output_weight.T)[0, -1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_likeliest_ids_after_the_prompt_are_what_is_said(trained_model, kind):
    run = str(trained_model(kind))
    trained = open_model(run)
    texts = open_texts(run, trained.config)
    prompt = SENTENCES[1][:5]
    ids = [texts.start, *texts.encode(prompt)]
    first = len(ids)
    while len(ids) < first + 5:
        chosen = int(logits_by_definition(trained.model, ids)[: texts.vocabulary_size].argmax())
        if chosen == texts.end:
            break
        ids.append(chosen)
    stream = texts.stream()
    expected = "".join([*map(stream.add, ids[1:]), stream.finish()])
    said = list(generate(GenerateOptions(run, prompt, max_tokens=5, temperature=0)))
    assert "".join(said) == expected + "\n"
    assert said[0].startswith(prompt[:2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", *SENTENCES])
def test_a_stream_gives_the_text_in_whole_characters(trained_model, kind, text):
    run = str(trained_model(kind))
    texts = open_texts(run, open_model(run).config)
    stream = texts.stream()
    pieces = [stream.add(token) for token in texts.encode(text)]
    assert "".join([*pieces, stream.finish()]) == text
    assert not any("�" in piece for piece in pieces)


def test_the_same_seed_gives_the_same_texts_however_many(trained_model, capsys):
    run = trained_model("bytes")

    def said(*options):
        arguments = ["generate", "--run", run, "--prompt", "The", "--max-tokens", 20, *options]
        assert cli.main(list(map(str, arguments))) == 0
        return capsys.readouterr().out

    one, three = said("--seed", 7), said("--seed", 7, "--number", 3)
    assert one.startswith("The")
    assert three.startswith(f"--- text 1 ---\n{one}--- text 2 ---\nThe")
    assert said("--seed", 7) == one
    assert said("--seed", 8) != one


@pytest.mark.parametrize("length", [1, 2, 5])
def test_where_the_context_is_full_its_last_half_is_read_anew(trained_model, length):
    model = open_model(str(trained_model("bytes"))).model
    reader = Reader(model, length)
    held = []
    for step in ([256], [65, 66], [67], [68], [69], [70]):
        held = [*held, *step]
        if len(held) > length:
            held = held[-max(1, length // 2) :]
        torch.testing.assert_close(
            reader.read(step), logits_by_definition(model, held), rtol=1e-4, atol=1e-5
        )


def test_choices_have_the_probabilities_of_the_nucleus():
    logits = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.3]))
    draws = (np.arange(1000) + 0.5) / 1000
    for top_p, expected in {
        1.0: [100, 400, 200, 300],
        # The fewest that have it: 0.4 and 0.3.
        0.7: [0, 571, 0, 429],
        0.01: [0, 1000, 0, 0],
    }.items():
        chosen = [choose(logits, 1.0, top_p, draw) for draw in draws]
        assert np.abs(np.bincount(chosen, minlength=4) - expected).max() <= 1
    # Twice the temperature: square roots of the probabilities.
    roots = np.sqrt([0.1, 0.4, 0.2, 0.3])
    chosen = [choose(logits, 2.0, 1.0, draw) for draw in draws]
    assert np.abs(np.bincount(chosen) - 1000 * roots / roots.sum()).max() <= 1
    assert choose(logits, 0, 1.0, 0.99) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "-1"], "--temperature -1.0 is not a number of at least 0"),
        (["--top-p", "0"], "--top-p 0.0 is not a share above 0"),
        (["--max-tokens", "0"], "is not a whole number above 0"),
    ],
)
def test_bad_options_fail_before_any_work(options, message, capsys):
    assert cli.main(["generate", "--run", "nowhere", *options]) == 2
    assert message in capsys.readouterr().err


def refused(run, capsys):
    capsys.readouterr()
    code = cli.main(["generate", "--run", str(run), "--prompt", "a"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return code, error


def test_ids_that_are_no_text_one_by_one_are_refused(trained_model, capsys):
    code, error = refused(trained_model("gzip"), capsys)
    assert code == 2
    assert "ids of the codec gzip are no text before the last one is there" in error


def test_foreign_and_damaged_folders_are_named(trained_model, tmp_path, capsys):
    code, error = refused(tmp_path, capsys)
    assert code == 2
    assert "is no training run" in error
    source = trained_model("new-end")
    for file in source.rglob("*"):
        if file.is_file():
            copy = tmp_path / "run" / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    marker = tmp_path / "run" / "tokenizer" / "corpusmill.json"
    fields = json.loads(marker.read_text())
    marker.write_text(json.dumps(fields | {"end_of_document": 3}))
    code, error = refused(tmp_path / "run", capsys)
    assert code == 1
    assert "has another tokenizer" in error
    (tmp_path / "run" / "tokenizer" / "tokenizer.json").unlink()
    marker.unlink()
    code, error = refused(tmp_path / "run", capsys)
    assert code == 2
    assert "tokenizer" in error
