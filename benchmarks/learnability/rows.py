"""What is compared."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Subword:
    """Byte-level BPE.

    Attributes:
      vocabulary: how many ids there are.
      pre_tokenized: as GPT-2's; otherwise only line ends stop merges.
    """

    vocabulary: int
    pre_tokenized: bool = True


@dataclass(frozen=True)
class Row:
    """One way of turning text into ids.

    Attributes:
      name: in tables and folders; b: bits of a window, v: number of ids.
      codec: options of `examples`; `{counts}`, `{m1}` and names of codebooks in braces stand for
        their places. Without them the row is a subword tokenizer's.
      is_main: whether several seeds are trained.
      subword: what BPE is made like, in rows without a codec.
    """

    name: str
    codec: tuple[str, ...] = ()
    is_main: bool = False
    subword: "Subword | None" = None

    @property
    def needs_m1(self) -> bool:
        return any("m1" in option for option in self.codec)

    @property
    def folder(self) -> str:
        """The row's name as part of a file name."""
        return self.name.translate(str.maketrans(" [=", "---", ",]"))

    def options(self, places: Mapping[str, object]) -> list[str]:
        """The codec's options with places filled in."""
        return [option.format(**places) for option in self.codec]


_12_BITS = ("--window-bits", "12")
# Name -> options of `freeze`; `fit` stands for `--tokens` with the text that
# strings are fitted on, `{coarse}` for the n-gram model with the precision of 12 bits.
CODEBOOKS = {
    "coder": ("--allocation", "coder"),
    "greedy": ("--allocation", "optimal", "fit"),
    "flexible": ("--allocation", "optimal", "--parse", "flexible", "fit"),
    "m1_coder": ("--allocation", "coder", "--byte-model", "{m1}"),
    "m1_greedy": ("--allocation", "optimal", "--byte-model", "{m1}", "fit"),
    "coder_12": ("--allocation", "coder", "--byte-model", "{coarse}", *_12_BITS),
    "optimal_12": ("--allocation", "optimal", *_12_BITS, "fit"),
    "used_12": ("--allocation", "used", "--boundaries", "none", *_12_BITS, "fit"),
    "words_12": ("--allocation", "used", "--boundaries", "words", *_12_BITS, "fit"),
}

_NGRAM = ("--byte-model", "ngram", "--byte-counts", "{counts}")
_STATIC = ("--codec", "static-ac", "--byte-counts", "{counts}")
_EQUAL_INFO = ("--codec", "equal-info", *_NGRAM, "--window-bits")

_HALVES = ("--token-bits", "8")

# Ids that a small model can learn: the study of `--study 4096`.
SMALL_ROWS = (
    Row("used, words [v=4k]", ("--codebook", "{words_12}"), is_main=True),
    Row("subword [v=4k]", subword=Subword(4096), is_main=True),
    Row("used [v=4k]", ("--codebook", "{used_12}")),
    Row("subword within lines [v=4k]", subword=Subword(4096, pre_tokenized=False)),
    Row("optimal, greedy [v=4k]", ("--codebook", "{optimal_12}")),
    Row("EqualInfoAC [b=12, v=4k]", ("--codebook", "{coder_12}")),
    Row("bytes", ("--codec", "bytes")),
)

# The table of the paper: the study of `--study paper`.
PAPER_ROWS = (
    Row("bytes", ("--codec", "bytes"), is_main=True),
    Row("AC [v=256]", ("--codec", "ac", *_NGRAM, *_HALVES), is_main=True),
    Row("StaticAC [v=256]", (*_STATIC, *_HALVES)),
    Row("GZip [v=256]", ("--codec", "gzip")),
    Row("EqualInfoAC [b=16, v=256]", ("--codebook", "{coder}", *_HALVES), is_main=True),
    Row("EqualInfoAC [b=32, v=256]", (*_EQUAL_INFO, "32", *_HALVES)),
    Row("optimal, greedy [v=256]", ("--codebook", "{greedy}", *_HALVES), is_main=True),
    Row("subword [v=65k]", subword=Subword(1 << 16)),
    Row("AC [v=65k]", ("--codec", "ac", *_NGRAM, "--token-bits", "16")),
    Row("EqualInfoAC [b=16, v=65k]", ("--codebook", "{coder}")),
    Row("EqualInfoAC [b=32, v=65k]", (*_EQUAL_INFO, "32", "--token-bits", "16")),
    Row("optimal, greedy [v=65k]", ("--codebook", "{greedy}")),
    Row("optimal, flexible [v=65k]", ("--codebook", "{flexible}")),
    Row("EqualInfoAC of M1 [b=16, v=256]", ("--codebook", "{m1_coder}", *_HALVES)),
    Row("optimal of M1, greedy [v=256]", ("--codebook", "{m1_greedy}", *_HALVES)),
)

STUDIES = {"4096": SMALL_ROWS, "paper": PAPER_ROWS}
