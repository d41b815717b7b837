import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.tokenizers import Tokenizer, describe_tokenizer, load_tokenizer
from corpusmill.corpus.tokenizers.backends import flat, make_backend
from corpusmill.corpus.tokenizers.pieces import PIECE_BYTES, split_text
from corpusmill.corpus.tokenizers.tokenizer import MARKER

KINDS = ("bytes", "gpt2", "gptneox", "mistral")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
Load = Callable[..., Tokenizer]

# Llama 3 has this too, and Qwen with single digits.
GPT4_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def specs(shared_data: Path) -> dict[str, str]:
    folder = shared_data / "tokenizers"
    return {
        "bytes": "bytes",
        "gpt2": f"{folder}/gpt2_vocab.json,{folder}/gpt2_merges.txt",
        "gptneox": f"{folder}/gptneox_tokenizer.json",
        "mistral": f"{folder}/mistral_v1.model",
    }


@pytest.fixture(scope="module")
def load(specs: dict[str, str]) -> Load:
    cache: dict[str, Tokenizer] = {}

    def get(kind: str) -> Tokenizer:
        if kind not in cache:
            cache[kind] = load_tokenizer(specs[kind])
        return cache[kind]

    return get


@pytest.fixture(scope="module")
def wiki(shared_data: Path) -> list[str]:
    with gzip.open(shared_data / "corpora" / "simplewiki.jsonl.gz") as file:
        return [json.loads(line)["text"] for line in file]


def arrow(*texts: str) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def save(folder: Path, tokenizer: Tokenizer) -> str:
    folder.mkdir()
    for name, data in tokenizer.files.items():
        (folder / name).write_bytes(data)
    return str(folder)


def word_level(*words: str, **parts: Any) -> tokenizers.Tokenizer:
    """A small tokenizer for what the real ones don't have."""
    vocabulary = {word: i for i, word in enumerate(["[UNK]", *words])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def saved(path: Path, tokenizer: tokenizers.Tokenizer) -> str:
    tokenizer.save(str(path))
    return str(path)


def trained_sentencepiece(**options: Any) -> bytes:
    out = io.BytesIO()
    sentences = ["one two three four five six", "the quick brown fox", "jumps over a lazy dog"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 50),
        model_writer=out,
        **{"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 2, **options},
    )
    return out.getvalue()


class TestEncoding:
    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("bytes", (257, 256, "<end>", np.uint16)),
            ("gpt2", (50257, 50256, "<|endoftext|>", np.uint16)),
            ("gptneox", (50280, 50279, "<|endoftext|>", np.uint16)),
            ("mistral", (32000, 2, "</s>", np.uint16)),
        ],
    )
    def test_vocabularies(self, load: Load, kind: str, expected: Any) -> None:
        tokenizer = load(kind)
        end = tokenizer.end_of_document
        found = (tokenizer.vocab_size, end, tokenizer.token_text(end), tokenizer.dtype)
        assert found == expected

    def test_known_ids(self, load: Load) -> None:
        """From the models' own documentation and from `transformers`."""
        assert load("gpt2").encode("Hello world").tolist() == [15496, 995]
        assert load("gptneox").encode("Hello world").tolist() == [12092, 1533]
        assert load("mistral").encode("Hello world").tolist() == [22557, 1526]
        assert load("bytes").encode("é").tolist() == [0xC3, 0xA9]

    @pytest.mark.parametrize("kind", KINDS)
    def test_documents_lie_flat_and_end_with_their_token(self, load: Load, kind: str) -> None:
        tokenizer = load(kind)
        texts = ["Hello world", "", "a\0é", "", "x" * 300]
        tokens, lengths = tokenizer.encode_batch(arrow(*texts))
        assert tokens.dtype == tokenizer.dtype
        assert lengths.dtype == np.int64
        expected = [[*tokenizer.encode(text).tolist(), tokenizer.end_of_document] for text in texts]
        assert lengths.tolist() == [len(ids) for ids in expected]
        assert tokens.tolist() == [i for ids in expected for i in ids]

    @pytest.mark.parametrize("kind", KINDS)
    def test_slices_and_empty_arrays(self, load: Load, kind: str) -> None:
        tokenizer = load(kind)
        texts = arrow("one", "zwei é", "", "drei", "four")
        for part in (texts.slice(1, 3), texts.slice(4), texts.slice(2, 1)):
            expected = tokenizer.encode_batch(arrow(*part.to_pylist()))
            for found in (part, part.cast(pa.string())):
                for one, other in zip(tokenizer.encode_batch(found), expected, strict=True):
                    np.testing.assert_array_equal(one, other)
        for empty in (texts.slice(2, 0), arrow(), pa.array([], pa.large_string())):
            tokens, lengths = tokenizer.encode_batch(empty)
            assert (tokens.size, lengths.size) == (0, 0)
            assert tokens.dtype == tokenizer.dtype

    def test_nulls_are_refused(self, load: Load) -> None:
        with pytest.raises(ValueError, match="null"):
            load("bytes").encode_batch(pa.array(["a", None], pa.large_string()))

    @pytest.mark.parametrize("kind", ["bytes", "gpt2"])
    @given(text=TEXTS)
    def test_decoding_gives_the_text_back(self, load: Load, kind: str, text: str) -> None:
        tokenizer = load(kind)
        assert tokenizer.decode(tokenizer.encode(text)) == text
        tokens, _ = tokenizer.encode_batch(arrow(text))
        assert tokenizer.decode(tokens) == text

    @pytest.mark.parametrize("kind", ["gpt2", "mistral"])
    @settings(max_examples=30)
    @given(texts=st.lists(TEXTS, max_size=8))
    def test_a_batch_is_its_texts(self, load: Load, kind: str, texts: list[str]) -> None:
        tokenizer = load(kind)
        tokens, lengths = tokenizer.encode_batch(arrow(*texts))
        parts = np.split(tokens, np.cumsum(lengths)[:-1]) if texts else []
        for text, part in zip(texts, parts, strict=True):
            assert part.tolist() == [*tokenizer.encode(text), tokenizer.end_of_document]

    @pytest.mark.parametrize("kind", KINDS)
    def test_text_never_yields_special_tokens(self, load: Load, kind: str) -> None:
        tokenizer = load(kind)
        specials = "<|endoftext|> </s> <s> <unk> <|padding|> <end>"
        ids = tokenizer.encode(specials)
        special_ids = {"gptneox": {1, 50279}, "mistral": {0, 1, 2}, "gpt2": {50256}, "bytes": {256}}
        assert not special_ids[kind] & set(ids.tolist())
        assert tokenizer.decode(ids) == specials

    @pytest.mark.parametrize("kind", KINDS)
    def test_tokens_show_their_text(self, load: Load, kind: str) -> None:
        tokenizer = load(kind)
        shown = [tokenizer.token_text(int(i)) for i in tokenizer.encode("Zoë said: €𝄞")]
        joined = "".join(shown).removeprefix(" ")
        assert joined.encode().decode("unicode_escape" if kind == "bytes" else "utf-8")
        assert "\\x9d\\x84\\x9e" in joined or "\\x84\\x9e" in joined or "\\x9d" in joined
        assert all(tokenizer.token_text(i) is not None for i in range(tokenizer.vocab_size))
        for outside in (-1, tokenizer.vocab_size):
            with pytest.raises(ValueError, match="outside the vocabulary"):
                tokenizer.token_text(outside)

    @pytest.mark.parametrize("kind", KINDS)
    def test_decoding_ids_beyond_the_vocabulary_is_an_error(self, load: Load, kind: str) -> None:
        tokenizer = load(kind)
        assert tokenizer.decode([tokenizer.end_of_document]) == ""
        for outside in (-1, tokenizer.vocab_size, 1 << 40):
            with pytest.raises(ValueError, match=f"token id {outside} is outside the vocabulary"):
                tokenizer.decode([*tokenizer.encode("text"), outside])

    def test_texts_of_particular_tokens(self, load: Load) -> None:
        assert load("gpt2").token_text(995) == " world"
        assert load("gpt2").token_text(447) == "\\xe2\\x80"
        assert load("gptneox").token_text(50276) == "  "
        assert load("mistral").token_text(1526) == " world"
        assert load("mistral").token_text(3 + 0x0A) == "\n"
        assert load("mistral").token_text(3 + 0xE2) == "\\xe2"
        assert load("bytes").token_text(0x41) == "A"

    def test_an_id_outside_the_vocabulary_is_an_error(self, load: Load) -> None:
        tokenizer = load_tokenizer("bytes")
        assert tokenizer.vocab_size == 257
        broken: Any = load("gpt2")
        with pytest.MonkeyPatch.context() as patch:
            wrong = make_backend("tokenizers", lambda texts: flat([[5, 70_000]] * len(texts)))
            patch.setattr(broken, "_backend", wrong)
            with pytest.raises(DataError, match=r"gave: token id 70000 .* of 50257"):
                broken.encode("x")


class TestLongTexts:
    @pytest.mark.parametrize("kind", ["gpt2", "gptneox", "mistral"])
    def test_pieces_give_the_ids_of_the_whole(
        self, load: Load, wiki: list[str], kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tokenizer = load(kind)
        text = "\n\n".join(wiki)[:1_500_000]
        assert len(list(split_text(memoryview(text.encode())))) == 2
        in_pieces = tokenizer.encode(text)
        monkeypatch.setattr("corpusmill.corpus.tokenizers.pieces.PIECE_BYTES", 1 << 40)
        np.testing.assert_array_equal(in_pieces, tokenizer.encode(text))

    @pytest.mark.parametrize("kind", ["gpt2", "gptneox", "mistral"])
    def test_small_pieces_too(
        self, load: Load, wiki: list[str], kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Hundreds of cuts, also between documents of a batch."""
        tokenizer = load(kind)
        texts = arrow(*wiki[:50], "", " ".join(wiki[50:70]))
        tokens, lengths = tokenizer.encode_batch(texts)
        monkeypatch.setattr("corpusmill.corpus.tokenizers.pieces.PIECE_BYTES", 300)
        assert len(list(split_text(memoryview(wiki[0].encode())))) > 5
        found_tokens, found_lengths = tokenizer.encode_batch(texts)
        np.testing.assert_array_equal(tokens, found_tokens)
        np.testing.assert_array_equal(lengths, found_lengths)

    @pytest.mark.parametrize("pattern", [GPT4_SPLIT, GPT4O_SPLIT])
    def test_small_pieces_with_other_splitting_rules(
        self,
        specs: dict[str, str],
        wiki: list[str],
        tmp_path: Path,
        pattern: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        vocabulary, merges = specs["gpt2"].split(",")
        small = tokenizers.Tokenizer(models.BPE.from_file(vocabulary, merges))
        small.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer = load_tokenizer(saved(tmp_path / "t.json", small))
        text = "\n".join(wiki[:60])
        whole = tokenizer.encode(text)
        monkeypatch.setattr("corpusmill.corpus.tokenizers.pieces.PIECE_BYTES", 200)
        np.testing.assert_array_equal(tokenizer.encode(text), whole)

    @pytest.mark.parametrize("kind", ["gpt2", "mistral"])
    @pytest.mark.parametrize("text", ["字é\u3000" * 400_000, "ab\n" * 500_000, " " * 1_500_000])
    def test_texts_without_places_to_cut_stay_themselves(
        self, load: Load, kind: str, text: str
    ) -> None:
        tokenizer = load(kind)
        assert tokenizer.decode(tokenizer.encode(text)) == text

    @given(text=st.text(st.sampled_from("ab é字😀 \n\u00a0"), max_size=80), size=st.integers(4, 12))
    def test_cuts(self, text: str, size: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("corpusmill.corpus.tokenizers.pieces.PIECE_BYTES", size)
            pieces = list(split_text(memoryview(text.encode())))
        assert "".join(pieces) == text
        assert all(len(piece.encode()) <= size for piece in pieces)
        assert all(pieces) or not text

    @pytest.mark.parametrize(
        ("text", "first"),
        [
            ("aa bb cc dd", "aa bb cc"),  # Before the last single space whose both sides are seen.
            ("aa bb  cc\n d", "aa"),
            ("aa\nbb\n\ncccc", "aa"),
            ("aaa\u00a0 bbbbbbbb", "aaa\u00a0 bbbb"),
            ("aaaaaaaaéé", "aaaaaaaaé"),
        ],
    )
    def test_where_cuts_are(self, text: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("corpusmill.corpus.tokenizers.pieces.PIECE_BYTES", 10)
        assert next(split_text(memoryview(text.encode()))) == first

    def test_short_texts_are_one_piece(self) -> None:
        assert list(split_text(memoryview(b""))) == [""]
        assert len(list(split_text(memoryview(b"a " * (PIECE_BYTES // 2))))) == 1

    @pytest.mark.parametrize(
        "options",
        [
            {"model_type": "bpe"},
            {"model_type": "unigram"},
            {"model_type": "unigram", "add_dummy_prefix": False},
            {"model_type": "bpe", "remove_extra_whitespaces": False},
            {"remove_extra_whitespaces": False, "add_dummy_prefix": False},
        ],
    )
    def test_every_sort_of_sentencepiece_prefix(
        self, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "m.model").write_bytes(trained_sentencepiece(**options))
        tokenizer = load_tokenizer(str(tmp_path / "m.model"))
        text = "the quick brown fox jumps over three lazy dogs"
        whole = tokenizer.encode(text)
        monkeypatch.setattr("corpusmill.corpus.tokenizers.pieces.PIECE_BYTES", 12)
        np.testing.assert_array_equal(tokenizer.encode(text), whole)

    @pytest.mark.parametrize(
        "parts",
        [
            {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="always")},
            {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="first")},
            {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="never")},
            {
                "normalizer": normalizers.Sequence(
                    [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
                ),
                "pre_tokenizer": pre_tokenizers.Split("▁", "merged_with_next"),
            },
            {
                "normalizer": normalizers.Prepend("▁"),
                "pre_tokenizer": pre_tokenizers.Split(" ", "removed"),
            },
            {
                "pre_tokenizer": pre_tokenizers.Sequence(
                    [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
                )
            },
        ],
    )
    def test_every_sort_of_hugging_face_prefix(
        self, tmp_path: Path, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ["one", "two", "three", "four"]
        small = word_level(*words, *(f"▁{word}" for word in words), **parts)
        tokenizer = load_tokenizer(saved(tmp_path / "tokenizer.json", small))
        text = " ".join(words * 5)
        whole = tokenizer.encode(text)
        assert len(set(whole.tolist())) >= 4
        monkeypatch.setattr("corpusmill.corpus.tokenizers.pieces.PIECE_BYTES", 17)
        np.testing.assert_array_equal(tokenizer.encode(text), whole)

    def test_a_byte_level_prefix_is_put_once(
        self, specs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = json.loads(Path(specs["gptneox"]).read_bytes())
        config["pre_tokenizer"]["add_prefix_space"] = True
        (tmp_path / "tokenizer.json").write_text(json.dumps(config))
        tokenizer = load_tokenizer(str(tmp_path))
        text = "Hello字字字字字字字 world"
        whole = tokenizer.encode(text)
        monkeypatch.setattr("corpusmill.corpus.tokenizers.pieces.PIECE_BYTES", 11)
        assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.decode(whole) == f" {text}"


class TestHuggingFaceSettings:
    def test_truncation_padding_and_templates_are_switched_off(self, tmp_path: Path) -> None:
        small = word_level("a", "b", "[CLS]", "[SEP]", "[PAD]")
        small.add_special_tokens(["[CLS]", "[SEP]", "[PAD]"])
        small.enable_truncation(2)
        small.enable_padding(length=8, pad_id=5, pad_token="[PAD]")
        small.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
        )
        tokenizer = load_tokenizer(saved(tmp_path / "t.json", small))
        assert tokenizer.encode("a b a b").tolist() == [1, 2, 1, 2]
        assert tokenizer.token_text(tokenizer.end_of_document) == "[SEP]"

    def test_dropout_is_switched_off(self, tmp_path: Path) -> None:
        model = models.BPE(
            vocab={"a": 0, "b": 1, "ab": 2, "abab": 3},
            merges=[("a", "b"), ("ab", "ab")],
            dropout=0.9,
        )
        spec = saved(tmp_path / "t.json", tokenizers.Tokenizer(model))
        tokenizer = load_tokenizer(spec)
        assert {tuple(tokenizer.encode("abab").tolist()) for _ in range(20)} == {(3,)}

    def test_large_vocabularies_take_four_bytes(self, tmp_path: Path) -> None:
        for size, dtype in ((65_534, np.uint16), (65_535, np.uint16), (65_536, np.uint32)):
            small = word_level(*(f"w{i}" for i in range(size - 1)))
            tokenizer = load_tokenizer(saved(tmp_path / "t.json", small))
            assert tokenizer.vocab_size == size + 1  # And a new id for the end.
            assert tokenizer.dtype == dtype
            assert tokenizer.encode(f"w{size - 2}").tolist() == [size - 1]
            assert tokenizer.encode_batch(arrow("w0"))[0].tolist() == [1, size]

    def test_added_tokens_count_and_gaps_have_a_text(self, tmp_path: Path) -> None:
        small = word_level("a", decoder=decoders.Metaspace())
        config = json.loads(small.to_str())
        added = {"content": "<x>", "single_word": False, "lstrip": False, "rstrip": False}
        config["added_tokens"] = [{**added, "id": 2, "normalized": False, "special": True}]
        config["model"]["vocab"]["b"] = 10
        (tmp_path / "t.json").write_text(json.dumps(config))
        tokenizer = load_tokenizer(str(tmp_path / "t.json"))
        assert tokenizer.end_of_document == 11
        assert [tokenizer.token_text(i) for i in (1, 5, 10, 11)] == [
            "a",
            "<unused 5>",
            "b",
            "<end>",
        ]


class TestEndOfDocument:
    def test_it_can_be_named(self, load: Load, specs: dict[str, str]) -> None:
        for kind, name, expected in (
            ("gptneox", "<|padding|>", 1),
            ("mistral", "<s>", 1),
            ("bytes", "<end>", 256),
        ):
            tokenizer = load_tokenizer(specs[kind], end_of_document=name)
            assert tokenizer.end_of_document == expected
            assert tokenizer.token_text(expected) == name
            is_default = load(kind).end_of_document == expected
            assert (tokenizer.content_hash == load(kind).content_hash) == is_default

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_has_to_be_in_the_vocabulary(self, specs: dict[str, str], kind: str) -> None:
        with pytest.raises(
            UsageError, match=r"'<\|nothing\|>' is not in the tokenizer's vocabulary"
        ):
            load_tokenizer(specs[kind], end_of_document="<|nothing|>")

    def test_one_that_text_becomes_is_refused(self, specs: dict[str, str]) -> None:
        for kind, name in (("gpt2", "Hello"), ("gptneox", "the")):
            with pytest.raises(UsageError, match=f"document's text '{name}' becomes, too"):
                load_tokenizer(specs[kind], name)

    def test_one_that_ends_up_inside_a_document_is_an_error(self, specs: dict[str, str]) -> None:
        tokenizer = load_tokenizer(specs["gpt2"], "ĠHello")
        assert tokenizer.encode("Hello").tolist() == [15496]
        with pytest.raises(DataError, match="gave id 18435, which ends documents, inside a text"):
            tokenizer.encode("Oh! Hello")

    def test_what_a_folder_records_is_taken_as_it_is(self, tmp_path: Path) -> None:
        """Data that is there already can be read, whatever its documents end with."""
        unigram = tokenizers.Tokenizer(
            models.Unigram([("<unk>", 0), ("</s>", -9), ("a", -1)], unk_id=0)
        )
        unigram.add_special_tokens(["</s>"])
        path = saved(tmp_path / "tokenizer.json", unigram)
        assert load_tokenizer(path).end_of_document == 3  # Since text becomes its </s>.
        with pytest.raises(UsageError, match="text '</s>' becomes, too"):
            load_tokenizer(path, "</s>")
        (tmp_path / MARKER).write_text(
            json.dumps({"end_of_document": 1, "end_of_document_text": "</s>"})
        )
        old = load_tokenizer(str(tmp_path))
        assert old.end_of_document == 1
        assert old.encode("aa").tolist() == [2, 2]
        with pytest.raises(DataError, match="gave id 1, which ends documents, inside a text"):
            old.encode("a</s>")

    def test_one_that_is_not_special_is_not_guessed(self, tmp_path: Path) -> None:
        tokenizer = word_level("a")
        tokenizer.add_tokens(["<|endoftext|>"])
        for special, expected in ((False, None), (True, "<|endoftext|>")):
            config = json.loads(tokenizer.to_str())
            config["added_tokens"][0]["special"] = special
            (tmp_path / "t.json").write_text(json.dumps(config))
            found = load_tokenizer(str(tmp_path / "t.json"))
            assert found.token_text(found.end_of_document) == (expected or "<end>")

    def test_a_new_one_where_the_vocabulary_has_none(self, tmp_path: Path) -> None:
        tokenizer = load_tokenizer(saved(tmp_path / "t.json", word_level("a")))
        assert (tokenizer.end_of_document, tokenizer.vocab_size) == (2, 3)
        (tmp_path / "m.model").write_bytes(trained_sentencepiece(eos_id=-1))
        tokenizer = load_tokenizer(str(tmp_path / "m.model"))
        assert tokenizer.end_of_document == tokenizer.vocab_size - 1
        tokens, _ = tokenizer.encode_batch(arrow("one", "two"))
        assert tokenizer.decode(tokens[: len(tokens) // 2]) in ("one", "on")


class TestLoading:
    @pytest.mark.parametrize("kind", KINDS)
    def test_from_a_folder_of_its_files(
        self, load: Load, specs: dict[str, str], tmp_path: Path, kind: str
    ) -> None:
        other = {"bytes": "<end>", "gpt2": "<|endoftext|>", "gptneox": "<|padding|>"}
        for number, name in enumerate([None, other.get(kind, "<s>")]):
            tokenizer = load_tokenizer(specs[kind], name)
            folder = save(tmp_path / str(number), tokenizer)
            again = load_tokenizer(folder)
            assert describe_tokenizer(again) == describe_tokenizer(tokenizer)
            assert again.files == tokenizer.files
            for one, other in zip(
                again.encode_batch(arrow("some text")),
                tokenizer.encode_batch(arrow("some text")),
                strict=True,
            ):
                np.testing.assert_array_equal(one, other)
        assert load_tokenizer(folder, load(kind).token_text(load(kind).end_of_document)).files == (
            load(kind).files
        )

    def test_content_hashes_tell_tokenizers_apart_and_never_change(self, load: Load) -> None:
        hashes = {kind: load(kind).content_hash[:16] for kind in KINDS}
        assert hashes == {
            "bytes": "4bbb5b935af332b8",
            "gpt2": "383febe63bda4c14",
            "gptneox": "26ab8fa7697e3973",
            "mistral": "a453a9398a83ac67",
        }

    def test_folders_as_they_are_published(self, specs: dict[str, str], tmp_path: Path) -> None:
        vocabulary, merges = (Path(path) for path in specs["gpt2"].split(","))
        layouts: dict[str, dict[str, Path]] = {
            "bpe": {"vocab.json": vocabulary, "merges.txt": merges},
            "sentencepiece": {"tokenizer.model": Path(specs["mistral"])},
            "huggingface": {
                "tokenizer.json": Path(specs["gptneox"]),
                "tokenizer.model": Path(specs["mistral"]),
            },
        }
        for kind, files in layouts.items():
            folder = tmp_path / kind
            folder.mkdir()
            (folder / "config.json").write_text("{}")
            for name, source in files.items():
                (folder / name).write_bytes(source.read_bytes())
            assert load_tokenizer(str(folder)).kind == kind
        (tmp_path / "sentencepiece" / "tokenizer.model").rename(
            tmp_path / "sentencepiece" / "spiece.model"
        )
        assert load_tokenizer(str(tmp_path / "sentencepiece")).kind == "sentencepiece"

    def test_content_decides_whatever_the_name(self, specs: dict[str, str], tmp_path: Path) -> None:
        for kind in ("gptneox", "mistral"):
            (tmp_path / "x").write_bytes(Path(specs[kind]).read_bytes())
            assert load_tokenizer(str(tmp_path / "x")).vocab_size in (50280, 32000)

    def test_urls(self, specs: dict[str, str]) -> None:
        fs = fsspec.filesystem("memory")
        fs.pipe_file("/t/tokenizer.json", Path(specs["gptneox"]).read_bytes())
        for url in ("memory://t", "memory://t/tokenizer.json"):
            assert load_tokenizer(url).vocab_size == 50280

    def test_windows_line_ends_in_merges(self, specs: dict[str, str], tmp_path: Path) -> None:
        vocabulary, merges = specs["gpt2"].split(",")
        (tmp_path / "m").write_bytes(Path(merges).read_bytes().replace(b"\n", b"\r\n"))
        tokenizer = load_tokenizer(f"{vocabulary},{tmp_path}/m")
        assert tokenizer.encode("Hello world").tolist() == [15496, 995]

    def test_what_is_no_tokenizer_is_told_in_one_line(
        self, specs: dict[str, str], tmp_path: Path
    ) -> None:
        vocabulary, merges = specs["gpt2"].split(",")
        (tmp_path / "garbage").write_bytes(b"\x00\xffgarbage" * 100)
        (tmp_path / "list.json").write_text("[1]")
        (tmp_path / "cut.json").write_text('{"model": {')
        (tmp_path / "no.json").write_text('{"model": {"type": "Unheard"}}')
        (tmp_path / "nothing").write_bytes(b"")
        (tmp_path / "empty").mkdir()
        (tmp_path / "two").mkdir()
        for name in ("a.model", "b.model"):
            (tmp_path / "two" / name).write_bytes(b"")
        (tmp_path / "marked").mkdir()
        (tmp_path / "marked" / MARKER).write_text("{")
        specs_of_nothing = [
            *map(str, sorted(tmp_path.iterdir())),
            vocabulary,
            merges,
            f"{merges},{vocabulary}",
            f"{vocabulary},{tmp_path}/none",
            f"{tmp_path}/none",
            "gpt2",
            "",
        ]
        for spec in specs_of_nothing:
            with pytest.raises(UsageError) as caught:
                load_tokenizer(spec)
            message = str(caught.value)
            assert repr(spec) in message, spec
            assert "accepted are a tokenizer.json" in message
            assert "\n" not in message

    def test_bytes_need_no_library_state_in_a_new_process(self, tmp_path: Path) -> None:
        """A worker loads a tokenizer by its folder alone."""
        folder = save(tmp_path / "t", load_tokenizer("bytes"))
        load = "from corpusmill.corpus.tokenizers import load_tokenizer"
        code = f"{load}; print(load_tokenizer({folder!r}).encode('a'))"
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
        )
        assert done.stdout == "[97]\n", done.stderr


@pytest.mark.parametrize("end", [-1, 257, 1 << 40])
def test_an_end_of_documents_that_no_vocabulary_has_is_refused(end, tmp_path):
    folder = tmp_path / "bytes"
    save(folder, load_tokenizer("bytes"))
    marker = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps(marker | {"end_of_document": end}))
    with pytest.raises(UsageError, match=rf"the id that ends documents is {end}; .* below 256"):
        load_tokenizer(str(folder))
