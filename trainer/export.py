"""Trained models as folders that Hugging Face's libraries open."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from corpusmill.corpus import storage
from corpusmill.corpus.outputs import expect_empty
from corpusmill.corpus.tokenizers import Special, Tokenizer, UnsupportedError, tokenizer_files
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.models import ROTARY_BASE
from corpusmill.trainer.opening import Trained, open_model
from corpusmill.trainer.tensor_files import save_tensors
from corpusmill.trainer.texts import Texts, open_texts

# How the id that stands before a codec's is shown.
START = "<start>"
_LAYER = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.inner": "mlp.up_proj",
    "mlp.output": "mlp.down_proj",
}


def export_model(place: str, output: str) -> list[str]:
    """Writes a model as a `LlamaForCausalLM`, with a tokenizer where one can give its ids.

    Args:
      place: folder or URL of a run or a checkpoint.
      output: a new folder, or URL.

    Returns:
      What was written, in lines.

    Raises:
      UsageError: there is no such model, or the output holds something.
      DataError: something is damaged.
    """
    trained = open_model(place)
    expect_empty(output)
    texts = open_texts(trained.run, trained.config)
    try:
        tokenizer, told = _tokenizer_files(trained, texts), "a tokenizer of the same ids"
    except UnsupportedError as error:
        tokenizer, told = {}, f"without a tokenizer: {error}"
    model = storage.join(output, "model.safetensors")
    save_tensors(model, llama_tensors(trained), {"format": "pt"})
    ids = {"bos_token_id": texts.start, "eos_token_id": texts.end, "pad_token_id": texts.start}
    config = llama_config(trained.model.config, _length(trained)) | ids
    documents = {**tokenizer, "generation_config.json": _to_json(ids)}
    # Last: what opens a model looks for it.
    for name, data in {**documents, "config.json": _to_json(config)}.items():
        storage.write_bytes(storage.join(output, name), data)
    count = sum(each.numel() for each in trained.model.parameters())
    return [f"{output}: LlamaForCausalLM of {count:,} parameters", f"  {told}"]


def llama_config(model: ModelConfig, length: int) -> dict[str, Any]:
    """The `config.json` of a model that has learnt sequences of `length` tokens."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocabulary_size,
        "hidden_size": model.width,
        "intermediate_size": model.mlp_width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.heads,
        "head_dim": model.head_size,
        "hidden_act": "silu",
        "rms_norm_eps": torch.finfo(torch.float32).eps,
        "rope_theta": ROTARY_BASE,
        "max_position_embeddings": length,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float32",
    }


def llama_tensors(trained: Trained) -> dict[str, Tensor]:
    """The parameters under their names there; rows that no token has are left out."""
    config, found = trained.model.config, trained.model.state_dict()
    tensors = {
        "model.embed_tokens.weight": found["embedding.weight"][: config.vocabulary_size],
        "model.norm.weight": found["norm.weight"],
    }
    for layer in range(config.layers):
        for name, theirs in _LAYER.items():
            weight = found[f"blocks.{layer}.{name}.weight"]
            if name in ("attention.query", "attention.key"):
                weight = _halved(weight, config.head_size)
            tensors[f"model.layers.{layer}.{theirs}.weight"] = weight
    return tensors


def _halved(weight: Tensor, head_size: int) -> Tensor:
    """Rows of heads in which pair i is not 2i and 2i + 1, but i and half the head size further."""
    heads = weight.unflatten(0, (-1, head_size // 2, 2))
    return heads.transpose(1, 2).reshape(weight.shape)


def _tokenizer_files(trained: Trained, texts: Texts) -> dict[str, bytes]:
    start, end = Special(texts.start, START), None
    if isinstance(texts.encoding, Tokenizer):
        start = end = Special(texts.start, texts.encoding.token_text(texts.start))
    definition = texts.encoding.definition()
    return tokenizer_files(definition, texts.encode, start, end, _length(trained))


def _length(trained: Trained) -> int:
    return int(trained.config.options["length"])


def _to_json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, indent=1).encode() + b"\n"
