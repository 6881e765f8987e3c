"""Published weights in your own models: what a parameter is called there, and what here."""

from collections.abc import Mapping

import torch
from torch import nn

# Hugging Face's names for the parts of a BertForPreTraining -> the names of chapter 5.
_BERT = {
    "embeddings.word_embeddings": "embeddings.token",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.token_type_embeddings": "embeddings.segment",
    "embeddings.LayerNorm": "embeddings.norm",
    "pooler.dense": "pooler",
}
_BERT_LAYER = {
    "attention.self.query": "self_attn.w_q",
    "attention.self.key": "self_attn.w_k",
    "attention.self.value": "self_attn.w_v",
    "attention.output.dense": "self_attn.w_o",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "w_1",
    "output.dense": "w_2",
    "output.LayerNorm": "norm2",
}
_LANGUAGE_HEAD = {
    "cls.predictions.transform.dense": "dense",
    "cls.predictions.transform.LayerNorm": "norm",
    "cls.predictions": "",  # its bias
}
_NEXT_HEAD = {"cls.seq_relationship": "classifier"}
# Hugging Face's names for the parts of a GPT2LMHeadModel -> the names of chapter 6. Its packed
# projection c_attn comes in three parts here, after load_gpt2 has cut it.
_GPT2 = {"wte": "token", "wpe": "position", "ln_f": "norm"}
_GPT2_LAYER = {
    "ln_1": "norm1",
    "attn.c_attn.q": "self_attn.w_q",
    "attn.c_attn.k": "self_attn.w_k",
    "attn.c_attn.v": "self_attn.w_v",
    "attn.c_proj": "self_attn.w_o",
    "ln_2": "norm2",
    "mlp.c_fc": "w_1",
    "mlp.c_proj": "w_2",
}


def load_bert(
    model: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    language_head: nn.Module | None = None,
    next_head: nn.Module | None = None,
) -> None:
    """Copy the weights of a Hugging Face BERT into chapter 5's modules, in place.

    Args:
        model: a ``BertModel`` of the same sizes.
        state_dict: of a ``BertForPreTraining`` or a ``BertModel`` of ``transformers``.
        language_head, next_head: a ``MaskedLanguageModelHead`` and a ``NextSentenceHead``, to be
            filled as well. The first has no matrix of its own: hand it ``model``'s embedding.

    Raises:
        ValueError: the weights do not fit; the text names one that does not. Nothing is changed.
    """
    # The oldest checkpoints, bert-base-uncased among them, call a norm's parameters gamma, beta.
    found = {
        name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias"): tensor
        for name, tensor in state_dict.items()
    }
    layers = {name.split(".")[2] for name in found if name.startswith("encoder.layer.")}
    parts = _BERT | {
        f"encoder.layer.{i}.{theirs}": f"layers.{i}.{ours}"
        for i in layers
        for theirs, ours in _BERT_LAYER.items()
    }
    wanted = [(model, parts), (language_head, _LANGUAGE_HEAD), (next_head, _NEXT_HEAD)]
    ready = [
        (module, _renamed(module, found, parts)) for module, parts in wanted if module is not None
    ]
    for module, weights in ready:
        module.load_state_dict(weights)


def load_gpt2(model: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Copy the weights of a Hugging Face GPT-2 into chapter 6's ``GPT``, in place.

    Args:
        model: a ``GPT`` of the same sizes.
        state_dict: of a ``GPT2LMHeadModel`` or a ``GPT2Model`` of ``transformers``.

    Raises:
        ValueError: the weights do not fit, or the output is not tied to the input; the text says
            which. Nothing is changed.
    """
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state_dict.items():
        part, _, last = name.removeprefix("transformer.").rpartition(".")
        # GPT-2 stores the matrices of its maps as (inputs, outputs); nn.Linear wants the reverse.
        if part.startswith("h.") and last == "weight" and tensor.ndim == 2:
            tensor = tensor.T
        if part.endswith("attn.c_attn"):
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                found[f"{part}.{letter}.{last}"] = third
        else:
            found[f"{part}.{last}"] = tensor
    output, table = found.get("lm_head.weight"), found.get("wte.weight")
    if output is not None and table is not None and not torch.equal(output, table):
        raise ValueError(
            "lm_head.weight of the checkpoint is not wte.weight, but GPT has one matrix for input "
            "and output. Load a checkpoint that ties them, as the published GPT-2 does."
        )
    layers = {name.split(".")[1] for name in found if name.startswith("h.")}
    parts = _GPT2 | {
        f"h.{i}.{theirs}": f"blocks.{i}.{ours}"
        for i in layers
        for theirs, ours in _GPT2_LAYER.items()
    }
    model.load_state_dict(_renamed(model, found, parts))


def _renamed(
    module: nn.Module, found: Mapping[str, torch.Tensor], parts: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """The tensors of ``found`` that belong to ``parts``, under ``module``'s own names."""
    renamed, origin = {}, {}
    for name, tensor in found.items():
        part, _, last = name.rpartition(".")
        if part in parts:
            ours = f"{parts[part]}.{last}".removeprefix(".")
            renamed[ours], origin[ours] = tensor, name
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    kind = type(module).__name__
    if missing := sorted(own.keys() - renamed.keys()):
        raise ValueError(
            f"The checkpoint has nothing for {missing[0]} of {kind}. Build the model with the "
            "checkpoint's number of layers, and load a checkpoint that has this part."
        )
    if extra := sorted(renamed.keys() - own.keys()):
        raise ValueError(
            f"{kind} has no {extra[0]}, for which the checkpoint has {origin[extra[0]]}. Build the "
            "model with the checkpoint's number of layers."
        )
    for name, shape in own.items():
        if tuple(renamed[name].shape) != shape:
            raise ValueError(
                f"{name} of {kind} has the shape {shape}, and {origin[name]} of the checkpoint "
                f"{tuple(renamed[name].shape)}. Build the model with the checkpoint's sizes."
            )
    return renamed
