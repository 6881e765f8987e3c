"""Chapter 6's GPT, filled from a checkpoint in Hugging Face's format, computes what it does."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from workbook.pretrained import load_gpt2
from workbook.ready.gpt import GPT, generate
from workbook.text import Tokenizer

TEXT = (
    "The sea was calm and the ship was small. The captain of the small ship saw the sea, "
    "and the sea saw the captain. Nobody saw the whale."
)
SIZES = {"vocab_size": 300, "context": 32, "d_model": 24, "num_layers": 3, "num_heads": 4}


@pytest.fixture(scope="module")
def theirs() -> GPT2LMHeadModel:
    torch.manual_seed(1)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=300,
            n_positions=32,
            n_embd=24,
            n_layer=3,
            n_head=4,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    # As they start, all norms are the identity and all biases 0: mistaken names would not show.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def ours(**changes: int) -> GPT:
    return GPT(**(SIZES | changes)).eval()


@pytest.fixture
def token_ids() -> torch.Tensor:
    return torch.randint(300, (3, 17), generator=torch.Generator().manual_seed(2))


def same_logits(theirs: GPT2LMHeadModel, model: GPT, token_ids: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model(token_ids), theirs(token_ids).logits, rtol=0, atol=1e-5)


def test_a_saved_checkpoint_gives_the_same_logits(theirs, token_ids, tmp_path):
    theirs.save_pretrained(tmp_path)
    model = ours()
    # A saved file holds the tied matrix once, and no lm_head.
    state = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in state
    load_gpt2(model, state)
    same_logits(theirs, model, token_ids)
    again = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    same_logits(again, model, token_ids)


def test_every_parameter_of_the_model_comes_from_the_checkpoint(theirs):
    model = ours()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    load_gpt2(model, theirs.state_dict())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    count = sum(p.numel() for p in theirs.parameters())
    assert sum(p.numel() for p in model.parameters()) == count


def test_the_model_without_its_head_can_be_loaded(theirs, token_ids):
    model = ours()
    load_gpt2(model, theirs.transformer.state_dict())
    same_logits(theirs, model, token_ids)


def test_names_and_buffers_of_older_checkpoints_are_understood(theirs, token_ids):
    state = {name.removeprefix("transformer."): t for name, t in theirs.state_dict().items()}
    del state["lm_head.weight"]
    for i in range(3):  # the mask, which older versions saved with the weights
        state[f"h.{i}.attn.bias"] = torch.ones(32, 32).tril().view(1, 1, 32, 32)
        state[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    model = ours()
    load_gpt2(model, state)
    same_logits(theirs, model, token_ids)


def test_greedy_tokens_and_decoded_text_are_the_same(theirs):
    tokenizer = Tokenizer.train([TEXT], vocab_size=300)
    prompts = ["The captain", "Nobody saw the", "é🙂"]
    model = ours()
    load_gpt2(model, theirs.state_dict())
    for prompt in prompts:
        ids = torch.tensor([tokenizer.encode(prompt)])
        assert ids.max() < 300
        mine = generate(model, ids, 15, temperature=0)
        # No token ends the text here, so that both write as many.
        expected = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=15,
            min_new_tokens=15,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert mine.tolist() == expected.tolist()
        known = tokenizer.vocab_size
        text = tokenizer.decode(i for i in mine[0].tolist() if i < known)
        assert text == tokenizer.decode(i for i in expected[0].tolist() if i < known)
        assert text.startswith(prompt)


def test_the_checkpoint_is_copied_and_not_shared(theirs):
    model = ours()
    state = theirs.state_dict()
    load_gpt2(model, state)
    before = state["transformer.wpe.weight"].clone()
    with torch.no_grad():
        model.position.weight.zero_()
    assert torch.equal(state["transformer.wpe.weight"], before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_layers": 4}, r"nothing for blocks\.3\..* number of layers"),
        ({"num_layers": 2}, r"no blocks\.2\..*h\.2\..* number of layers"),
        ({"d_model": 28}, r"\(.*28.*\).*\(.*24.*\).* sizes"),
        ({"context": 64}, r"position\.weight .*\(64, 24\).*\(32, 24\).* sizes"),
        ({"vocab_size": 301}, r"token\.weight .*\(301, 24\).*\(300, 24\).* sizes"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_nothing_changes(theirs, changes, said):
    model = ours(**changes)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=said):
        load_gpt2(model, theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_an_output_that_is_not_tied_is_refused(theirs):
    state = dict(theirs.state_dict())
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    with pytest.raises(ValueError, match=r"lm_head.weight .* ties"):
        load_gpt2(ours(), state)
