"""Chapter 5's modules, filled from a checkpoint in Hugging Face's format, compute what it does."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForPreTraining

from workbook.pretrained import load_bert
from workbook.ready.bert import BertModel, MaskedLanguageModelHead, NextSentenceHead

SIZES = {"vocab_size": 97, "d_model": 24, "num_layers": 3, "num_heads": 4, "d_ff": 40}


@pytest.fixture(scope="module")
def theirs() -> BertForPreTraining:
    torch.manual_seed(1)
    model = BertForPreTraining(
        BertConfig(
            vocab_size=97,
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=40,
            max_position_embeddings=32,
        )
    )
    # As they start, all norms are the identity and all biases 0: mistaken names would not show.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def ours(**changes: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    sizes = SIZES | changes
    model = BertModel(**sizes, max_length=32)
    head = MaskedLanguageModelHead(sizes["d_model"], sizes["vocab_size"])
    return model.eval(), head.eval(), NextSentenceHead(sizes["d_model"]).eval()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    token_ids = torch.randint(1, 97, (4, 11), generator=generator)
    token_ids[1, 7:] = 0
    token_ids[3, 2:] = 0
    segments = (torch.arange(11) > 5).long().expand(4, -1)
    return {"input_ids": token_ids, "token_type_ids": segments}


def same(theirs: BertForPreTraining, modules: tuple, batch: dict[str, torch.Tensor]) -> None:
    model, head, following = modules
    real = batch["input_ids"] != 0
    with torch.no_grad():
        expected = theirs(**batch, attention_mask=real.long(), output_hidden_states=True)
        hidden, pooled = model(batch["input_ids"], batch["token_type_ids"])
        logits = head(hidden, model.embeddings.token.weight)
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(hidden[real], expected.hidden_states[-1][real], **close)
    torch.testing.assert_close(logits[real], expected.prediction_logits[real], **close)
    torch.testing.assert_close(following(pooled), expected.seq_relationship_logits, **close)


def test_a_saved_checkpoint_gives_the_same_outputs(theirs, batch, tmp_path):
    theirs.save_pretrained(tmp_path)
    modules = ours()
    load_bert(modules[0], load_file(tmp_path / "model.safetensors"), *modules[1:])
    same(theirs, modules, batch)


def test_the_oldest_names_of_a_norm_are_understood(theirs, batch, tmp_path):
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor.clone()
        for name, tensor in theirs.state_dict().items()
    }
    assert sum("gamma" in name for name in old) == 8  # embeddings, two per layer, head
    save_file(old, tmp_path / "old.safetensors")
    modules = ours()
    load_bert(modules[0], load_file(tmp_path / "old.safetensors"), *modules[1:])
    same(theirs, modules, batch)


def test_the_encoder_alone_can_be_filled(theirs, batch):
    model, *_ = ours()
    load_bert(model, theirs.bert.state_dict())
    with torch.no_grad():
        expected = theirs.bert(**batch, attention_mask=(batch["input_ids"] != 0).long())
        _, pooled = model(batch["input_ids"], batch["token_type_ids"])
    torch.testing.assert_close(pooled, expected.pooler_output, rtol=0, atol=1e-5)


def test_the_checkpoint_is_copied_and_not_shared(theirs):
    modules = ours()
    state = theirs.state_dict()
    load_bert(modules[0], state, *modules[1:])
    before = state["bert.pooler.dense.weight"].clone()
    with torch.no_grad():
        modules[0].pooler.weight.zero_()
    assert torch.equal(state["bert.pooler.dense.weight"], before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_layers": 4}, r"nothing for layers\.3\..* number of layers"),
        ({"num_layers": 2}, r"no layers\.2\..*encoder\.layer\.2\..* number of layers"),
        ({"d_ff": 44}, r"layers\.0\.w_1\.weight .*\(44, 24\).*\(40, 24\).* sizes"),
        ({"vocab_size": 98}, r"token\.weight .*\(98, 24\).*\(97, 24\).* sizes"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_nothing_changes(theirs, changes, said):
    modules = ours(**changes)
    before = [p.clone() for module in modules for p in module.parameters()]
    with pytest.raises(ValueError, match=said):
        load_bert(modules[0], theirs.state_dict(), *modules[1:])
    after = [p for module in modules for p in module.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_heads_that_the_checkpoint_lacks_are_named_and_nothing_changes(theirs):
    model, head, following = ours()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="nothing for bias of MaskedLanguageModelHead"):
        load_bert(model, theirs.bert.state_dict(), head, following)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
