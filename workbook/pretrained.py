"""Published weights in your own models: what a parameter is called there, and what here."""

import re
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

# Hugging Face's names for the parts of a ViTForImageClassification, and of a ViTMAEForPreTraining's
# encoder -> the names of chapters 7 and 8.
_VIT = {"patch_embeddings.projection": "patch.projection", "layernorm": "norm"}
_VIT_HEAD = {"classifier": "head"}
_MAE_DECODER = {"decoder_embed": "embed", "decoder_norm": "norm", "decoder_pred": "predict"}
# A layer's parts have two names each: those of files on the hub, and those of transformers 5.
_VIT_LAYER = {
    "layernorm_before": "norm1",
    "attention.attention.query": "self_attn.w_q",
    "attention.attention.key": "self_attn.w_k",
    "attention.attention.value": "self_attn.w_v",
    "attention.output.dense": "self_attn.w_o",
    "layernorm_after": "norm2",
    "intermediate.dense": "w_1",
    "output.dense": "w_2",
    "attention.q_proj": "self_attn.w_q",
    "attention.k_proj": "self_attn.w_k",
    "attention.v_proj": "self_attn.w_v",
    "attention.o_proj": "self_attn.w_o",
    "mlp.fc1": "w_1",
    "mlp.fc2": "w_2",
}
# Parameters that are no part of a layer. Here they have no axes for batch and length.
_TABLES = {
    "cls_token": "class_token",
    "position_embeddings": "position",
    "mask_token": "mask_token",
    "decoder_pos_embed": "position",
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


def load_vit(model: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Copy the weights of a Hugging Face ViT into chapter 7's ``VisionTransformer``, in place.

    Args:
        model: a ``VisionTransformer`` of the same sizes.
        state_dict: of a ``ViTForImageClassification`` of ``transformers``.

    Raises:
        ValueError: the weights do not fit; the text names one that does not. Nothing is changed.
    """
    found = _vision(state_dict, "vit.", "classifier.")
    model.load_state_dict(_renamed(model, found, _VIT | _VIT_HEAD | _vision_layers(found)))


def load_mae(model: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Copy the weights of a Hugging Face MAE into chapter 8's ``MaskedAutoencoder``, in place.

    Args:
        model: a ``MaskedAutoencoder`` of the same sizes.
        state_dict: of a ``ViTMAEForPreTraining`` of ``transformers``.

    Raises:
        ValueError: the weights do not fit; the text names one that does not. Nothing is changed.
    """
    seen = _vision(state_dict, "vit.")
    written = _vision(state_dict, "decoder.")
    ready = [
        (model.encoder, _renamed(model.encoder, seen, _VIT | _vision_layers(seen))),
        (model.decoder, _renamed(model.decoder, written, _MAE_DECODER | _vision_layers(written))),
    ]
    for module, weights in ready:
        module.load_state_dict(weights)


def _vision(state_dict: Mapping[str, torch.Tensor], *prefixes: str) -> dict[str, torch.Tensor]:
    """What stands under ``prefixes``, in the shapes of chapters 7 and 8; most names still theirs.

    Of the names, layers are called ``layers.0`` and so on, whatever they were called, and what is
    no part of a module has its name here, behind a dot.
    """
    found = {}
    for name, tensor in state_dict.items():
        if not name.startswith(prefixes):
            continue
        short = re.sub(r"^(vit|decoder)\.(embeddings\.)?", "", name)
        # In files encoder.layer.0; in transformers 5 layers.0; in decoders with a prefix more.
        short = re.sub(r"^(decoder_)?(encoder\.)?layers?\.(?=\d)", "layers.", short)
        if short in _TABLES:
            # (1, 1, d) and (1, length, d): the axes in front are left to broadcasting.
            tensor = tensor[0, 0] if short.endswith("token") else tensor[0]
            short = f".{_TABLES[short]}"
        elif tensor.ndim == 4:
            # A convolution's (d, channel, row, column); a patch here is (row, column, channel).
            tensor = tensor.permute(0, 2, 3, 1).flatten(1)
        found[short] = tensor
    return found


def _vision_layers(found: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The parts of the layers that ``found`` has, and the tables, which are parts of nothing."""
    layers = {name.split(".")[1] for name in found if name.startswith("layers.")}
    return {"": ""} | {
        f"layers.{i}.{theirs}": f"blocks.{i}.{ours}"
        for i in layers
        for theirs, ours in _VIT_LAYER.items()
    }


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
