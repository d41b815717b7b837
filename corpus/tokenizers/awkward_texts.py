"""Strings on which tokenizers of one definition have been known to differ.

They are computed from constants, without Python's Unicode tables, so that every version of Python
has the same ones. Code points that are not assigned yet are among them, because libraries know
Unicode of different years.
"""

# ruff: noqa: E501  (a text is a line)

import functools
import itertools
from collections.abc import Iterable, Iterator

# (first, last and one, step) of code points: all of what is small and varied, some of what is large
# and alike (ideographs, syllables, private use, unassigned planes).
_CODE_POINTS = (
    (0x0000, 0x3400, 1),
    (0x3400, 0xA000, 251),
    (0xA000, 0xAC00, 1),
    (0xAC00, 0xD7A4, 113),
    (0xD7B0, 0xD800, 1),
    (0xE000, 0xF900, 401),
    (0xF900, 0x10000, 1),
    (0x10000, 0x12000, 3),
    (0x12000, 0x16A00, 37),
    (0x16A00, 0x17000, 5),
    (0x17000, 0x1AFF0, 211),
    (0x1AFF0, 0x1D000, 29),
    (0x1D000, 0x1FC00, 3),
    (0x1FC00, 0x30000, 1021),
    (0x30000, 0x110000, 16411),
    (0xE0001, 0xE01F0, 3),
)
_IN_A_STRING = 64

_SPACES = " \t\n\r\v\f\u0085\u00a0\u1680\u2003\u2009\u2028\u2029\u200b\u202f\u205f\u3000\ufeff"
_RUNS = (1, 2, 3, 4, 7, 8, 15, 16, 24, 25, 31, 32, 33, 64, 127, 600)

_CONTRACTIONS = ("'s", "'S", "'t", "'re", "'RE", "'ve", "'Ve", "'m", "'ll", "'LL", "'d", "\u2019s")

# Composed and not, in and out of order, excluded from composition, Hangul by the letter.
_NORMALIZATION = (
    "e\u0301 \u00e9 E\u0301\u0323 E\u0323\u0301 a\u0315\u0300\u05ae\u0300b \u0344 \u0340\u0341",
    "\u212b \u00c5 A\u030a \u2126 \u03a9 \u212a K \u0958 \u0915\u093c \ufb1d \u05d9\u05b4",
    "\u1100\u1161\u11a8 \uac01 \uac00\u11a8 \u1112\u1175\u11c2\u11a8 \u1161 \u11a8\u1161",
    "\ufb01 \ufb03 \u017f \u1e9e \u00df \u01c4 \u2460 \u00bd \u33a1 \uff21\uff11 \u3300 \u2025",
    "\u0130 i\u0307 I\u0307 \u0131 \u03c2\u03c3\u03a3 \u1fb3 \u1f88 \u0390 \u1d15e\u1d165",
    "\U0001d15e \U0001d157\U0001d165 \U00011099 \U00011099\U000110ba \U0002f800 \U0001e4ec\u0301",
    "\u1ab0\u1ac1 \u1dfa\u0300 \u08d3\u0653 \u0fb2\u0f81 \u0dda \u0dd9\u0dca \u1b06 \u0cca",
)
_SCRIPTS = (
    "\u4e2d\u6587\u6ca1\u6709\u7a7a\u683c\uff0c\u4f46\u6709\u6807\u70b9\u3002\u7b2c12\u7ae0ABC\u6df7\u5408",
    "\u65e5\u672c\u8a9e\u306f\u304b\u306a\u3068\u30ab\u30ca\u3001\u6f22\u5b57\u30fc\u30fb\u3005\u3006",
    "\u0e44\u0e21\u0e48\u0e21\u0e35\u0e0a\u0e48\u0e2d\u0e07\u0e27\u0e48\u0e32\u0e07\u0e15\u0e31\u0e27",
    "\u1019\u103c\u1014\u103a\u1019\u102c\u1018\u102c\u101e\u102c \u1780\u17d2\u1798\u17c2\u179a",
    "\u0e9e\u0eb2\u0eaa\u0eb2\u0ea5\u0eb2\u0ea7 \u0f56\u0f7c\u0f51\u0f0b\u0f66\u0f90\u0f51\u0f0d",
    "\u0627\u0644\u0639\u064e\u0631\u064e\u0628\u0650\u064a\u064e\u0651\u0629\u0640\u0640 \u0661\u0662\u0663",
    "\u05e2\u05b4\u05d1\u05b0\u05e8\u05b4\u05d9\u05ea \u0939\u093f\u0928\u094d\u0926\u0940 \u0967\u0968",
    "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0b95\u0bcd\u0bb7 \u0d2e\u0d32\u0d2f\u0d3e\u0d33\u0d02 \u0c24\u0c46",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\U0001f3fd \U0001f1e9\U0001f1ea \u2764\ufe0f 1\ufe0f\u20e3",
)
_DIGITS = (
    "0 12 123 1234 12345 123456 1234567 1,234,567.89 3.14e-10 0x1F 1st 2nd 10\u00b2 \u00bd\u00be",
    "\u0661\u0662\u0663\u0664 \u0967\u0968\u0969 \uff11\uff12\uff13 \u2167\u2460\u3007 7\u03057 a1b2c3 1_000 $5 5%",
    "x1y22z333 2024-01-02T03:04:05Z +1 (555) 010-0199 192.168.0.1 v1.2.3-rc4 1/2 \u20ac1.000,00",
)
_CODE = (
    "def f(x):\n\treturn x**2  # \u00e9\n\n\n\nclass A:\n    pass\r\n    \r\n  \t  x=1;\r\r\n",
    "for(int i=0;i<n;++i){a[i]+=b[i]*c;}\n#include <stdio.h>\n/* ***/ //==>>!= -> :: ...\n",
    '<a href="https://example.org/?q=1&r=%20#x">CamelCaseWord snake_case kebab-case</a>\n\n',
    "|---|:--:|\n# \\u0000 \\\\n `x` ~~y~~ __z__ *** !!! ??? --- === $$$ @@@ ### %%% ^^^ &&& (((",
    "HTTPServer XMLHttpRequest iPhone McDonald O'Neill rock'n'roll \u00dcBER stra\u00dfe na\u00efve \u01c5a",
    "<|endoftext|> <|im_start|>user</s><s>[INST] <unk> [CLS] [MASK] <0x0A> <0xFF> \u2581\u2581a \u0120b \u010ac",
)
_TINY = (
    "",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\0",
    "\0\0 \0a",
    "a",
    " a",
    "a ",
    " a ",
    "\u0301",
    " \u0301a",
    "\ufffd",
)


@functools.cache
def awkward_texts() -> tuple[str, ...]:
    """All of them; about 450 KB."""
    return (
        *_TINY,
        *_NORMALIZATION,
        *_SCRIPTS,
        *_DIGITS,
        *_CODE,
        *_space_runs(),
        *_contractions(),
        *_long_runs(),
        *_code_points(),
    )


def in_contexts(tokens: Iterable[str]) -> Iterator[str]:
    """Tokens that are found in text by their spelling, beside all that may change how."""
    for token in tokens:
        yield from (
            f"{token}",
            f"a{token}b {token} c{token}",
            f" {token}  {token}\n{token}\t{token}.",
            f"{token}{token} x{token[:-1]}{token[1:]}",
            f"1{token}2 \u00e9{token}\u0301{token.upper()}{token.lower()}",
        )


def _space_runs() -> Iterator[str]:
    for space in _SPACES:
        runs = [space * length for length in _RUNS]
        yield "".join(f"{run}a" for run in runs)
        yield "".join(f"1{run}" for run in runs[:8])
        yield "".join(f".{run}\n{run}b {run}" for run in runs[:4])
    for one, other in itertools.product(_SPACES[:8], repeat=2):
        yield f"a{one}{other}b{other}{one}{one}c{one}{one}{other}{other}"


def _contractions() -> Iterator[str]:
    for ending in _CONTRACTIONS:
        yield f"I{ending} you{ending}x {ending} a {ending}b 1{ending}{ending} \u00e9{ending}\n{ending}"


def _long_runs() -> Iterator[str]:
    for part in (
        "a",
        "ab",
        "Z",
        "9",
        ".",
        "=",
        "-",
        "\u00e9",
        "\u5b57",
        "\u0301",
        "\U0001f600",
        "aB1 ",
        "\n \n",
    ):
        yield part * (3000 // len(part))


def _code_points() -> Iterator[str]:
    found = [
        chr(number) for first, last, step in _CODE_POINTS for number in range(first, last, step)
    ]
    for chunk in _batched(found):
        yield "".join(f"a{c}" for c in chunk)
        yield "".join(f" {c}" for c in chunk)
    for chunk in _batched(found[::6]):
        yield "".join(f"1{c}{c}\n" for c in chunk)
        yield "".join(f"{c}'s{c}\u0301" for c in chunk)


def _batched(items: list[str]) -> Iterator[list[str]]:
    return (items[i : i + _IN_A_STRING] for i in range(0, len(items), _IN_A_STRING))
