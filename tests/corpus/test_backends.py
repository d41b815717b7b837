"""Fast ways to encode: they are taken where they give the reference's ids, and only there."""

import dataclasses
import gzip
import itertools
import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given, settings
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from corpusmill.corpus.errors import CorpusmillError, DataError, UsageError
from corpusmill.corpus.tokenizers import load_tokenizer, use_backend, use_fastest
from corpusmill.corpus.tokenizers.awkward_texts import awkward_texts
from corpusmill.corpus.tokenizers.backends import make_backend
from corpusmill.corpus.tokenizers.conversion import converted
from corpusmill.corpus.tokenizers.pieces import PieceTokenizer
from corpusmill.corpus.tokenizers.tokenizer import BACKEND_VARIABLE
from tests.corpus.test_tokenizers import trained_sentencepiece

KINDS = ("gpt2", "gptneox", "mistral")
# What pre-tokenizers, normalizers and added tokens look at, and anything.
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            ["'s", "'LL", "  ", "\n", "\r\n", "\u00a0", "e\u0301", "123", "<|endoftext|>"]
        ),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    ),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def specs(shared_data: Path) -> dict[str, str]:
    folder = shared_data / "tokenizers"
    return {
        "gpt2": f"{folder}/gpt2_vocab.json,{folder}/gpt2_merges.txt",
        "gptneox": f"{folder}/gptneox_tokenizer.json",
        "mistral": f"{folder}/mistral_v1.model",
    }


@pytest.fixture(scope="module")
def both(specs: dict[str, str]) -> dict[str, tuple[PieceTokenizer, PieceTokenizer]]:
    """Each tokenizer, fast and as it is."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for kind, spec in specs.items():
        pairs[kind] = load_tokenizer(spec), load_tokenizer(spec)
        assert use_fastest(pairs[kind][0], []) is None
    return pairs


@pytest.fixture(autouse=True)
def unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)


def assert_same_ids(pair: tuple[PieceTokenizer, PieceTokenizer], texts: list[str]) -> None:
    fast, slow = (each.encode_batch(pa.array(texts, pa.large_string())) for each in pair)
    for one, other in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(one, other)


def bpe(path: Path, texts: list[str], added: Sequence[AddedToken] = (), **parts: Any) -> str:
    """A small byte-level tokenizer.json."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.add_tokens(list(added))
    tokenizer.save(str(path))
    return str(path)


class TestCertified:
    @pytest.mark.parametrize("kind", KINDS)
    def test_what_is_known_is_fast(self, both: Any, kind: str) -> None:
        fast, slow = both[kind]
        assert fast.backend.startswith("fastokens ")
        assert slow.backend.startswith("sentencepiece " if kind == "mistral" else "tokenizers ")
        assert fast.content_hash == slow.content_hash

    @pytest.mark.parametrize("kind", KINDS)
    @settings(max_examples=200)
    @given(text=TEXTS)
    def test_any_text_has_the_reference_s_ids(self, both: Any, kind: str, text: str) -> None:
        assert_same_ids(both[kind], [text])

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("corpus", ["simplewiki", "usgovweb", "zhwiki", "code"])
    def test_documents_have_the_reference_s_ids(
        self, both: Any, kind: str, corpus: str, shared_data: Path
    ) -> None:
        with gzip.open(shared_data / "corpora" / f"{corpus}.jsonl.gz") as file:
            texts = [json.loads(line)["text"] for line in itertools.islice(file, 30)]
        assert_same_ids(both[kind], texts)

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_follows_a_cut_has_the_reference_s_ids(
        self, both: Any, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("corpusmill.corpus.tokenizers.pieces.PIECE_BYTES", 40)
        assert_same_ids(both[kind], [" ".join(awkward_texts()[:60])])

    def test_pickles_and_workers_encode_by_the_same(self, both: Any, specs: dict[str, str]) -> None:
        for kind in KINDS:
            fast, slow = both[kind]
            for each in (fast, slow):
                again = pickle.loads(pickle.dumps(each))
                assert (again.backend, again.files) == (each.backend, each.files)
                assert again.encode("Hello world").tolist() == each.encode("Hello world").tolist()
            assert load_tokenizer(specs[kind], backend=fast.backend).backend == fast.backend

    def test_awkward_texts_are_the_same_everywhere(self) -> None:
        texts = awkward_texts()
        joined = "".join(texts)
        assert sum(map(len, texts)) > 100_000
        assert all(chr(number) in joined for number in range(0x3400))
        assert not any("\ud800" <= c <= "\udfff" for c in set(joined))


class TestRefused:
    def reason(self, spec: str) -> str:
        tokenizer = load_tokenizer(spec)
        before = tokenizer.backend
        reason = use_fastest(tokenizer, ["a document"])
        assert reason is not None
        assert tokenizer.backend == before
        return reason

    def test_a_normalizer_that_the_library_lacks(self, tmp_path: Path) -> None:
        spec = bpe(tmp_path / "t.json", ["text"], normalizer=normalizers.NFKC())
        assert "unsupported normalizer" in self.reason(spec)

    def test_white_space_that_regular_expressions_see_in_another_way(self, tmp_path: Path) -> None:
        split = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(r"\s+"), "removed"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        spec = bpe(tmp_path / "t.json", ["text"], pre_tokenizer=split)
        assert "has other ids for" in self.reason(spec)

    @pytest.mark.parametrize(("key", "value"), [("id", 5), ("content", "a")])
    def test_added_tokens_that_contradict_the_vocabulary(
        self, tmp_path: Path, key: str, value: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = bpe(tmp_path / "t.json", ["text"], [AddedToken("<x>")])
        tokenizer = load_tokenizer(path)
        config = json.loads(Path(path).read_text())
        config["added_tokens"][-1][key] = value
        # What `tokenizers` writes never contradicts itself, so the definition is given as it is.
        definition = json.dumps(config)

        class Contradicting:
            def to_str(self) -> str:
                return definition

        broken = Contradicting()
        monkeypatch.setattr(tokenizer, "_tokenizer", broken)
        monkeypatch.setattr(tokenizer, "_middle", broken)
        reason = use_fastest(tokenizer, [])
        assert reason is not None
        assert "contradicts its vocabulary" in reason

    def test_a_package_that_is_not_there(
        self, specs: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "fastokens", None)
        assert "fastokens is not installed" in self.reason(specs["gptneox"])
        tokenizer = load_tokenizer(specs["gptneox"])
        with pytest.raises(CorpusmillError, match="but here the package fastokens is not"):
            use_backend(tokenizer, "fastokens 0.3.5")

    def test_a_library_that_panics(
        self, specs: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class PanicException(BaseException):
            pass

        class Panicking:
            def encode_batch_flat(self, texts: list[str], **options: Any) -> Any:
                raise PanicException("index out of bounds")

            @classmethod
            def from_json_str(cls, text: str) -> "Panicking":
                return cls()

        monkeypatch.setattr("fastokens.Tokenizer", Panicking)
        assert "fastokens fails: index out of bounds" in self.reason(specs["gpt2"])
        monkeypatch.setattr(Panicking, "from_json_str", Panicking().encode_batch_flat)
        assert "fastokens does not take it: index out of" in self.reason(specs["gpt2"])

    def test_another_version_on_a_worker(self, specs: dict[str, str]) -> None:
        tokenizer = load_tokenizer(specs["gpt2"])
        with pytest.raises(
            CorpusmillError, match=r"by fastokens 0\.0\.1, but this worker has fast"
        ):
            use_backend(tokenizer, "fastokens 0.0.1")

    def test_doubters(self, specs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(BACKEND_VARIABLE, "reference")
        assert BACKEND_VARIABLE in self.reason(specs["gpt2"])
        monkeypatch.setenv(BACKEND_VARIABLE, "fastest")
        with pytest.raises(UsageError, match="accepted is reference"):
            use_fastest(load_tokenizer(specs["gpt2"]), [])

    def test_bytes_need_no_choice(self) -> None:
        tokenizer = load_tokenizer("bytes")
        assert use_fastest(tokenizer, ["a"]) is None
        assert tokenizer.backend is None

    def test_a_difference_in_the_job_s_own_documents(self, both: Any) -> None:
        fast, _ = both["gpt2"]
        tokenizer = load_tokenizer_like(fast)
        assert use_fastest(tokenizer, ["fine"]) is None
        tokenizer = load_tokenizer_like(fast)
        reason = use_fastest(tokenizer, ["fine", "a rare word"])
        assert (
            reason == f"tokenizers {fast.reference.name.split()[1]} has other ids for 'a rare word'"
        )

    @pytest.mark.parametrize(
        ("options", "obstacle"),
        [
            ({"model_type": "unigram"}, "no BPE model"),
            ({"model_type": "bpe"}, "no byte fallback"),
            ({"model_type": "bpe", "byte_fallback": True, "vocab_size": 330}, "normalizes text"),
        ],
    )
    def test_sentencepiece_models_that_do_more(
        self, tmp_path: Path, options: dict[str, Any], obstacle: str
    ) -> None:
        (tmp_path / "m.model").write_bytes(trained_sentencepiece(**options))
        assert obstacle in self.reason(str(tmp_path / "m.model"))


def load_tokenizer_like(tokenizer: PieceTokenizer) -> PieceTokenizer:
    """One whose fast library, otherwise the reference itself, errs in texts with a rare word."""
    again: PieceTokenizer = pickle.loads(pickle.dumps(tokenizer))
    again.use(again.reference)
    right = again.reference.start

    def wrong(texts: list[str]) -> Any:
        ids, lengths = right(texts)
        return ids + np.repeat(["rare" in text for text in texts], lengths), lengths

    again.fast_backend = lambda: make_backend("tokenizers", wrong)  # type: ignore[method-assign]
    return again


class TestCheck:
    def test_a_difference_names_the_document(self, both: Any) -> None:
        tokenizer = load_tokenizer_like(both["gpt2"][0])
        tokenizer.use(tokenizer.fast_backend())
        tokenizer.check(["file:0"], ["fine"])
        with pytest.raises(DataError, match=r"document 'file:7' has other ids by tokenizers .*"):
            tokenizer.check(["file:6", "file:7"], ["fine", "a rare word"])

    def test_the_reference_needs_no_check(self, both: Any) -> None:
        _, slow = both["gpt2"]
        broken = dataclasses.replace(slow.reference, start=None)
        slow.reference, before = broken, slow.reference
        slow.use(broken)
        try:
            slow.check(["file:0"], ["text"])
        finally:
            slow.reference = before
            slow.use(before)


def test_conversion_of_a_sentencepiece_model(tmp_path: Path) -> None:
    model = trained_sentencepiece(
        model_type="bpe",
        byte_fallback=True,
        vocab_size=330,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )
    start, middle = (json.loads(text) for text in converted(model))
    assert [step["type"] for step in start["normalizer"]["normalizers"]] == ["Prepend", "Replace"]
    assert [step["type"] for step in middle["normalizer"]["normalizers"]] == ["Replace"]
    (tmp_path / "m.model").write_bytes(model)
    tokenizer = load_tokenizer(str(tmp_path / "m.model"))
    # The fast library takes the names of control pieces in a text for the pieces, where no merge
    # leads away from them.
    assert "has other ids for" in (use_fastest(tokenizer, []) or "")
