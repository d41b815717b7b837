"""SentencePiece models as a `tokenizer.json`, where that can say the same."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from corpusmill.corpus.tokenizers.backends import UnsupportedError

_BPE = 2
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_PREFIX = {"type": "Prepend", "prepend": "▁"}
_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}

# Of sentencepiece_model.proto, what is needed: name, number, type, default. (The class that comes
# with the library wants a newer protobuf than Beam allows.)
_FIELDS = {
    "SentencePiece": (
        ("piece", 1, "string", ""),
        ("score", 2, "float", "0"),
        ("type", 3, "int32", "1"),
    ),
    "TrainerSpec": (
        ("model_type", 3, "int32", "1"),
        ("treat_whitespace_as_suffix", 24, "bool", "false"),
        ("byte_fallback", 35, "bool", "false"),
    ),
    "NormalizerSpec": (
        ("precompiled_charsmap", 2, "bytes", ""),
        ("add_dummy_prefix", 3, "bool", "true"),
        ("remove_extra_whitespaces", 4, "bool", "true"),
        ("escape_whitespaces", 5, "bool", "true"),
    ),
    "ModelProto": (
        ("pieces", 1, "SentencePiece", ""),
        ("trainer_spec", 2, "TrainerSpec", ""),
        ("normalizer_spec", 3, "NormalizerSpec", ""),
    ),
}


def converted(model: bytes) -> tuple[str, str]:
    """A `tokenizer.json` that encodes as a SentencePiece model, and one for what follows a cut.

    Raises:
      UnsupportedError: the model does something that can't be said there.
    """
    proto = _model_class().FromString(model)
    _expect_plain(proto)
    vocabulary = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    [unknown] = (piece.piece for piece in proto.pieces if piece.type == _UNKNOWN)
    config: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": unknown,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": list(_merges(proto, vocabulary)),
        },
    }
    prefix = [_PREFIX] if proto.normalizer_spec.add_dummy_prefix else []
    start, continued = (
        orjson.dumps(config | {"normalizer": {"type": "Sequence", "normalizers": steps}}).decode()
        for steps in ([*prefix, _SPACES], [_SPACES])
    )
    return start, continued


def _expect_plain(proto: Any) -> None:
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    obstacles = {
        "it is no BPE model": trainer.model_type != _BPE,
        "it has no byte fallback": not trainer.byte_fallback,
        "it puts spaces behind words": trainer.treat_whitespace_as_suffix,
        "it normalizes text": normalizer.precompiled_charsmap,
        "it removes spaces": normalizer.remove_extra_whitespaces,
        "it doesn't escape spaces": not normalizer.escape_whitespaces,
        "it has pieces that users defined": any(
            piece.type not in (_NORMAL, _UNKNOWN, _CONTROL, _BYTE) for piece in proto.pieces
        ),
    }
    for what, is_so in obstacles.items():
        if is_so:
            raise UnsupportedError(what)


def _merges(proto: Any, vocabulary: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """All pairs of pieces that make a piece, the best piece first."""
    normal = {piece.piece for piece in proto.pieces if piece.type == _NORMAL}
    best_first = sorted(
        (piece for piece in proto.pieces if piece.type == _NORMAL), key=lambda piece: -piece.score
    )
    for piece in best_first:
        text = piece.piece
        pairs = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        known = [(left, right) for left, right in pairs if left in normal and right in normal]
        yield from sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))


@functools.cache
def _model_class() -> Any:
    package = "corpusmill.sentencepiece"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, number, kind, default in fields:
            field = described.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if name == "pieces" else field.LABEL_OPTIONAL
            if kind in _FIELDS:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
                field.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.ModelProto"))
