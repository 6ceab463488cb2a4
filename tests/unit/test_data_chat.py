"""Chat templates: the loss lies on what the assistant says and on the token that ends its turn."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from tests.unit.characters import characters
from tlscale.data.examples import prepare
from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources import Row, read

CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
PLAIN = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}{{ 'assistant: ...\\n' }}"
    "{% else %}{{ m.role + ': ' + m.content + '\\n' }}{% endif %}{% endfor %}"
)
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + PLAIN

SOURCE = Source(path="x.json", messages="messages")
TALK = [("system", "be kind"), ("user", "hi"), ("assistant", "yes?"), ("user", "2+2"), ("assistant", "4")]


def tokenizer_with(template, *added, **special):
    tokenizer = characters(**({"bos_token": "<s>", "eos_token": "</s>"} | special))
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    tokenizer.chat_template = template
    return tokenizer


def chatml():
    return tokenizer_with(CHATML, "<|im_start|>", "<|im_end|>", bos_token=None, eos_token="<|im_end|>")


def row(turns):
    return Row({"messages": [{"role": r, "content": c} for r, c in turns]}, "x.json:4")


def made(rows, tokenizer, **settings):
    options = {"max_length": 512, "overflow": "cut", "loss_on": "completion", **settings}
    return prepare(rows, SOURCE, task="causal-lm", processor=tokenizer, labels=(), **options)


def shown(example, tokenizer):
    """The example as text, with what is learned in brackets."""
    parts, on = [], False
    for token, learned in zip(example.tokens, example.loss, strict=True):
        if learned != on:
            parts.append("[" if learned else "]")
            on = learned
        parts.append(tokenizer.convert_ids_to_tokens(token))
    return "".join(parts) + ("]" if on else "")


def test_chatml_learns_answers_and_their_end_of_turn():
    tokenizer = chatml()
    (example,) = made([row(TALK)], tokenizer).examples
    assert shown(example, tokenizer) == (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n[yes?<|im_end|>]\n"
        "<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n[4<|im_end|>]\n"
    )
    assert example.text.endswith("<|im_start|>assistant\n")
    assert example.reference == "yes?"


def test_the_prompt_is_what_generation_starts_from():
    tokenizer = chatml()
    (example,) = made([row(TALK)], tokenizer).examples
    asked = tokenizer.apply_chat_template(
        row(TALK).values["messages"][:2], tokenize=False, add_generation_prompt=True
    )
    assert example.text == asked
    assert (
        example.tokens[: example.prompt_tokens] == tokenizer(asked, add_special_tokens=False)["input_ids"]
    )


def test_a_template_with_bos_gets_no_second_one():
    tokenizer = tokenizer_with(LLAMA2)
    (example,) = made([row(TALK[1:3])], tokenizer).examples
    assert shown(example, tokenizer) == "<s>[INST] hi [/INST][ yes? </s>]"


def test_a_template_without_bos_or_end_of_turn_gets_both():
    tokenizer = tokenizer_with(PLAIN)
    (example,) = made([row(TALK[1:])], tokenizer).examples
    assert shown(example, tokenizer) == "<s>user: hi\nassistant: [yes?\n]user: 2+2\nassistant: [4\n</s>]"


def test_a_conversation_that_ends_with_the_user_has_no_eos():
    tokenizer = tokenizer_with(PLAIN)
    (example,) = made([row(TALK[1:4])], tokenizer).examples
    assert shown(example, tokenizer) == "<s>user: hi\nassistant: [yes?\n]user: 2+2\n"


def test_loss_on_all_leaves_out_bos_alone():
    (example,) = made([row(TALK[1:3])], tokenizer_with(PLAIN), loss_on="all").examples
    assert example.loss == [False] + [True] * (len(example.tokens) - 1)


@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_cutting_takes_the_end_and_drops_what_has_no_answer_left(loss_on):
    tokenizer = tokenizer_with(PLAIN)
    full = made([row(TALK[1:])], tokenizer).examples[0]
    found = made([row(TALK[1:])], tokenizer, max_length=full.prompt_tokens + 2, loss_on=loss_on)
    (example,) = found.examples
    assert example.tokens == full.tokens[: full.prompt_tokens + 2]
    assert found.report.cut_tokens == len(full.tokens) - full.prompt_tokens - 2
    none = made([row(TALK[1:])], tokenizer, max_length=full.prompt_tokens, loss_on=loss_on)
    assert (none.report.examples, none.report.dropped_rows, none.report.cut_rows) == (0, 1, 1)
    with pytest.raises(DataError, match=r"x\.json:4: \d+ tokens, but data\.max_length is 5"):
        made([row(TALK)], tokenizer, max_length=5, overflow="error")


@pytest.mark.parametrize(
    ("template", "turns", "message"),
    [
        (None, TALK, r"no chat template; name a Jinja file in model\.chat_template"),
        (
            FORGETFUL,
            TALK,
            r"x\.json:4: the chat template rewrites earlier turns when messages\[3\] is added",
        ),
        (REFUSING, TALK, r"x\.json:4: the chat template refuses the first 2 messages: no system role"),
        (
            PLAIN,
            [("user", "hi"), ("assistant", " ")],
            r"x\.json:4: messages\[1\]: the assistant's content is empty",
        ),
        (PLAIN, [("user", None), ("assistant", "a")], r"messages\[0\]: role and content must be text"),
    ],
)
def test_templates_and_messages_that_can_not_be_used(template, turns, message):
    with pytest.raises(DataError, match=message):
        made([row(turns)], tokenizer_with(template))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hi", "messages is a str; a list of role and content is needed"),
        ([], "messages is a list"),
        ([{"from": "human", "value": "hi"}], r"messages\[0\] has from, value; role and content are needed"),
        (["hi"], r"messages\[0\] has a str"),
    ],
)
def test_messages_of_another_shape(messages, message):
    with pytest.raises(DataError, match=message):
        made([Row({"messages": messages}, "x.json:4")], tokenizer_with(PLAIN))


def test_real_conversations(data_root):
    tokenizer = AutoTokenizer.from_pretrained(data_root / "stories260k")
    tokenizer.chat_template = PLAIN
    source = Source(path=str(data_root / "chat_demos" / "kto_en_demo.json"), limit=60)
    rows = read(source, seed=0)
    options = {"max_length": 16384, "overflow": "error", "loss_on": "completion"}
    found = prepare(rows, source, task="causal-lm", processor=tokenizer, labels=(), **options)
    assert found.report.examples == 60
    for one, example in zip(rows, found.examples, strict=True):
        learned = [t for t, on in zip(example.tokens, example.loss, strict=True) if on]
        said = [m["content"] for m in one.values["messages"] if m["role"] == "assistant"]
        assert learned[-1] == tokenizer.eos_token_id
        assert example.tokens.count(tokenizer.bos_token_id) == 1
        assert "".join(tokenizer.decode(learned[:-1]).split()) == "".join("".join(said).split())
