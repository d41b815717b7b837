"""Which codec a command uses: its options `--codec`, `--codebook` and so on."""

import argparse
from typing import Any

from corpusmill.commands.arguments import Parser, location, reading
from corpusmill.commands.model_options import ModelChoice, add_model_options
from corpusmill.compress import (
    ArithmeticCodec,
    Codebook,
    CodebookCodec,
    Codec,
    EqualInfoCodec,
    PaddedCodec,
    StaticArithmeticCodec,
    SubwordCodec,
)
from corpusmill.compress.codebooks.codebook import PARSES
from corpusmill.compress.codecs import BASELINES, codec_on_device, runs_network
from corpusmill.compress.codecs.equal_info import MAX_WINDOW_BITS, MIN_WINDOW_BITS
from corpusmill.compress.codecs.padded import PADDINGS
from corpusmill.compress.coders.bits import TOKEN_BITS
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.options import integer, whole_number
from corpusmill.corpus.tokenizers import load_tokenizer
from corpusmill.pipelines.launching.options import RunOptions

_TOKEN_BITS = 16
_WINDOW_BITS = 16
_MODEL = ("byte_model", "byte_counts", "token_bits")
# What each codec takes, and what it needs.
_OPTIONS: dict[str, tuple[str, ...]] = {
    CodebookCodec.kind: ("codebook", "parse", "token_bits"),
    EqualInfoCodec.kind: (*_MODEL, "window_bits", "reset", "padding"),
    ArithmeticCodec.kind: _MODEL,
    StaticArithmeticCodec.kind: _MODEL,
    SubwordCodec.kind: ("tokenizer",),
    **dict.fromkeys(BASELINES, ()),
}
_NEEDS = {CodebookCodec.kind: "codebook", SubwordCodec.kind: "tokenizer"}


def add_codec_options(parser: Parser) -> None:
    """The options that `chosen_codec` reads."""
    group = parser.add_argument_group("codec", "what makes the ids; each codec has its own options")
    add = group.add_argument
    add(
        "--codec",
        choices=list(_OPTIONS),
        default=CodebookCodec.kind,
        help="codec: a codebook, or one that it is compared with",
    )
    add_codebook_option(group, "codebook: path or URL of the file")
    add(
        "--parse",
        choices=PARSES,
        help="codebook: cut of the text into strings (default: as it was fitted for)",
    )
    add_model_options(group)
    add(
        "--window-bits",
        type=reading(whole_number(MIN_WINDOW_BITS, MAX_WINDOW_BITS)),
        metavar="N",
        help="equal-info: bits of a window, 9 to 128 (default: 16)",
    )
    add(
        "--reset",
        type=_reset,
        metavar="WHEN",
        help="equal-info: the model starts afresh with every 'window' (default), after every so"
        " many windows, or 'never'",
    )
    add(
        "--padding",
        choices=PADDINGS,
        help="equal-info: the paper's windows instead of lossless ones; 'zeros' loses text",
    )
    add(
        "--token-bits",
        type=reading(integer),
        choices=TOKEN_BITS,
        help="equal-info, ac, static-ac: bits of an id (default: 16); codebook: 8 cuts codes of 16"
        " bits in halves",
    )
    add("--tokenizer", metavar="T", help="subword: a tokenizer as `tokenize` takes it")


def chosen_codec(arguments: argparse.Namespace) -> Codec:
    """The codec that the options name; raises UsageError where they don't fit each other."""
    kind = arguments.codec
    _check_options(kind, vars(arguments))
    if kind == CodebookCodec.kind:
        book = Codebook.open(arguments.codebook)
        return CodebookCodec(book, arguments.parse, arguments.token_bits)
    if kind == SubwordCodec.kind:
        return SubwordCodec(load_tokenizer(arguments.tokenizer))
    if kind in BASELINES:
        return BASELINES[kind]()
    usual = "static" if kind == StaticArithmeticCodec.kind else "ngram"
    model = ModelChoice(arguments.byte_model or usual, arguments.byte_counts).open()
    token_bits = arguments.token_bits or _TOKEN_BITS
    if kind == ArithmeticCodec.kind:
        return ArithmeticCodec(model, token_bits)
    if kind == StaticArithmeticCodec.kind:
        return StaticArithmeticCodec(model, token_bits)
    window_bits = arguments.window_bits or _WINDOW_BITS
    reset = {None: 1, 0: None}.get(arguments.reset, arguments.reset)
    if arguments.padding is None:
        return EqualInfoCodec(model, token_bits, window_bits, reset)
    if reset != 1:
        raise UsageError(f"--padding {arguments.padding} goes with --reset window only")
    return PaddedCodec(model, token_bits, window_bits, arguments.padding)


def add_codebook_option(parser: argparse._ActionsContainer, what: str) -> None:
    """`--codebook` of commands that encode or decode."""
    parser.add_argument("--codebook", type=location, metavar="FILE", help=what)


def check_device(codec: Codec, device: str, run: RunOptions) -> None:
    """Raises UsageError where the codec has nothing for a device to do, or there is none here.

    The machines of a runner are asked when they load the model.
    """
    if device != "cpu" and not runs_network(codec):
        raise UsageError(
            f"--device {device} is for codecs with a transformer byte model only, not"
            f" {', '.join(map(str, (codec.kind, *codec.options.values())))}"
        )
    if run.is_here:
        codec_on_device(codec, device)


def _check_options(kind: str, given: dict[str, Any]) -> None:
    for name in sorted(set().union(*_OPTIONS.values()) - set(_OPTIONS[kind])):
        if given[name] is not None:
            takers = ", ".join(codec for codec, names in _OPTIONS.items() if name in names)
            raise UsageError(f"--{name.replace('_', '-')} is for --codec {takers} only, not {kind}")
    if kind in _NEEDS and given[_NEEDS[kind]] is None:
        raise UsageError(f"--codec {kind} needs a {_NEEDS[kind]}: give --{_NEEDS[kind]}")


def _reset(text: str) -> int:
    """Windows, 0 for never."""
    named = {"window": 1, "never": 0}
    if text in named:
        return named[text]
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not 'window', 'never' or a number of windows"
        )
    return int(text)
