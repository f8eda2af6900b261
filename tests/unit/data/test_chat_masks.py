"""Which tokens are labels, for each family of chat templates, against lists written by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from ytrain.data.chat import ChatRenderer, Supervise
from ytrain.data.encoding import Encoder
from ytrain.data.records import Chat, Unusable
from ytrain.data.tokenising import vocabulary
from ytrain_api.errors import SpecError

pytestmark = pytest.mark.unit
MakeTokenizer = Callable[[str | None], PreTrainedTokenizerFast]


def _turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


SINGLE = (_turn("user", "Hi there"), _turn("assistant", "Hello"))
SYSTEM = (_turn("system", "Be helpful"), *SINGLE)
MULTI = (*SINGLE, _turn("user", "Ask again"), _turn("assistant", "Sure thing"))
CALL = {"type": "function", "function": {"name": "Ask"}}
TOOLS = (
    _turn("user", "Hi there"),
    _turn("assistant", "", tool_calls=[CALL]),
    _turn("tool", "Hello"),
    _turn("assistant", "Sure thing"),
)


def _sequences(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[dict[str, Any]],
    supervise: Supervise = "allAssistantTurns",
    **arguments: Any,
) -> list[tuple[list[str], list[list[str]]]]:
    """For each sequence its tokens, and the runs of supervised tokens."""
    rendered = ChatRenderer(tokenizer, arguments=arguments).render(Chat(tuple(messages)), supervise)
    result = []
    for ids, mask in Encoder(vocabulary(tokenizer)).encode(rendered):
        tokens = [tokenizer.decode([token]) for token in ids]
        runs: list[list[str]] = []
        for position, (token, supervised) in enumerate(zip(tokens, mask, strict=True)):
            if supervised and not mask[position - 1]:
                runs.append([])
            if supervised:
                runs[-1].append(token)
        result.append((tokens, runs))
    return result


def _runs(*args: Any, **kwargs: Any) -> list[list[list[str]]]:
    return [runs for _, runs in _sequences(*args, **kwargs)]


FAMILIES: list[tuple[str, dict[str, Any], Sequence[dict[str, Any]], list[list[list[str]]]]] = [
    ("smollm2", {}, SINGLE, [[["Hello", "<|im_end|>"]]]),
    ("smollm2", {}, SYSTEM, [[["Hello", "<|im_end|>"]]]),
    ("smollm2", {}, MULTI, [[["Hello", "<|im_end|>"], ["Sure", " thing", "<|im_end|>"]]]),
    ("llama3", {}, SYSTEM, [[["Hello", "<|eot_id|>"]]]),
    ("llama3", {}, MULTI, [[["Hello", "<|eot_id|>"], ["Sure", " thing", "<|eot_id|>"]]]),
    ("gemma", {}, SINGLE, [[["Hello", "<end_of_turn>"]]]),
    ("gemma", {}, MULTI, [[["Hello", "<end_of_turn>"], ["Sure", " thing", "<end_of_turn>"]]]),
    ("mistral", {}, SINGLE, [[[" Hello", "</s>"]]]),
    ("mistral", {}, MULTI, [[[" Hello", "</s>"], [" Sure", " thing", "</s>"]]]),
    # The whole ends with <|endoftext|>, which stands after no earlier turn: a sequence a turn.
    ("phi", {}, SYSTEM, [[["Hello", "<|end|>", "\n", "<|endoftext|>"]]]),
    (
        "phi",
        {},
        MULTI,
        [[["Hello", "<|end|>", "\n", "<|endoftext|>"]], [["Sure", " thing", "<|end|>", "\n", "<|endoftext|>"]]],
    ),
    # Thinking on: the (empty) think block is the model's to write.
    ("qwen3", {}, SINGLE, [[["<think>", "\n", "\n", "</think>", "\n", "\n", "Hello", "<|im_end|>"]]]),
    (
        "qwen3",
        {},
        (SINGLE[0], _turn("assistant", "Hello", reasoning_content="Why not")),
        [[["<think>", "\n", "Why", " not", "\n", "</think>", "\n", "\n", "Hello", "<|im_end|>"]]],
    ),
    # Thinking off: it belongs to the prompt.
    ("qwen3", {"enable_thinking": False}, SYSTEM, [[["Hello", "<|im_end|>"]]]),
    # Earlier turns lose their think block in the whole: a sequence a turn.
    (
        "qwen3",
        {},
        MULTI,
        [
            [["<think>", "\n", "\n", "</think>", "\n", "\n", "Hello", "<|im_end|>"]],
            [["<think>", "\n", "\n", "</think>", "\n", "\n", "Sure", " thing", "<|im_end|>"]],
        ],
    ),
    ("qwen3", {"enable_thinking": False}, MULTI, [[["Hello", "<|im_end|>"]], [["Sure", " thing", "<|im_end|>"]]]),
]


@pytest.mark.parametrize(("family", "arguments", "messages", "expected"), FAMILIES)
def test_the_supervised_tokens_of_a_family(
    make_tokenizer: MakeTokenizer,
    family: str,
    arguments: dict[str, Any],
    messages: Sequence[dict[str, Any]],
    expected: list[list[list[str]]],
) -> None:
    assert _runs(make_tokenizer(family), messages, **arguments) == expected


def test_the_whole_sequence_of_a_conversation(make_tokenizer: MakeTokenizer) -> None:
    [(tokens, _)] = _sequences(make_tokenizer("llama3"), MULTI)
    assert "".join(tokens) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAsk again<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nSure thing<|eot_id|>"
    )


def test_each_turn_of_a_thinking_chat_sees_what_it_sees_at_inference(make_tokenizer: MakeTokenizer) -> None:
    first = _turn("assistant", "Hello", reasoning_content="Why not")
    [(one, _), (two, _)] = _sequences(make_tokenizer("qwen3"), (SINGLE[0], first, *MULTI[2:]))
    assert "Why not" in "".join(one)
    assert "Why not" not in "".join(two) and "Hello" in "".join(two)


def test_tool_calls_are_learned_and_tool_answers_are_not(make_tokenizer: MakeTokenizer) -> None:
    sequences = _runs(make_tokenizer("qwen3"), TOOLS)
    call = '<think>\n\n</think>\n\n<tool_call>\n{"name": "Ask"}\n</tool_call><|im_end|>'
    answer = "<think>\n\n</think>\n\nSure thing<|im_end|>"
    assert [["".join(run) for run in runs] for runs in sequences] == [[call], [answer]]


def test_mistral_tool_answers_stay_in_one_sequence(make_tokenizer: MakeTokenizer) -> None:
    messages = (SINGLE[0], _turn("assistant", "Ask"), _turn("tool", "Hello"), _turn("assistant", "Sure thing"))
    assert _runs(make_tokenizer("mistral"), messages) == [[[" Ask", "</s>"], [" Sure", " thing", "</s>"]]]


def test_a_turn_of_weight_0_is_context(make_tokenizer: MakeTokenizer) -> None:
    chat = (SINGLE[0], {**SINGLE[1], "weight": 0}, *MULTI[2:])
    assert _runs(make_tokenizer("llama3"), chat) == [[["Sure", " thing", "<|eot_id|>"]]]
    with pytest.raises(Unusable, match="no assistant turn to learn: all have weight 0"):
        _runs(make_tokenizer("llama3"), chat[:2])
    with pytest.raises(Unusable, match="no assistant turn to learn"):
        _runs(make_tokenizer("llama3"), (*MULTI[:3], {**MULTI[3], "weight": 0}), "lastTurn")


def test_a_greeting_is_context(make_tokenizer: MakeTokenizer) -> None:
    [(tokens, runs)] = _sequences(make_tokenizer("llama3"), (SINGLE[1], *MULTI[2:]))
    assert runs == [["Sure", " thing", "<|eot_id|>"]]
    assert "Hello" in tokens


@pytest.mark.parametrize("family", ["smollm2", "phi", "qwen3"])
def test_the_last_turn_alone(make_tokenizer: MakeTokenizer, family: str) -> None:
    every = _runs(make_tokenizer(family), MULTI)
    assert _runs(make_tokenizer(family), MULTI, "lastTurn") == [[every[-1][-1]]]


def test_what_follows_the_last_answer_is_left_out(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer("smollm2")
    [(tokens, _)] = _sequences(tokenizer, (*SINGLE, _turn("user", "Why")))
    assert tokens[-2:] == ["Hello", "<|im_end|>"]


def test_labels_cover_spaces_line_ends_and_characters_of_several_tokens(make_tokenizer: MakeTokenizer) -> None:
    messages = (SINGLE[0], _turn("assistant", "  Hello \n\n é😀 "))
    tokenizer = make_tokenizer("smollm2")
    [(ids, mask)] = Encoder(vocabulary(tokenizer)).encode(ChatRenderer(tokenizer).render(Chat(messages)))
    assert tokenizer.decode(ids[mask]) == "  Hello \n\n é😀 <|im_end|>"


@pytest.mark.parametrize(
    ("family", "arguments", "messages", "reason"),
    [
        ("gemma", {}, SYSTEM, "the chat template refuses the record: System role not supported"),
        ("gemma", {}, (SINGLE[0], *SINGLE), "the chat template refuses the record: Conversation roles must alternate"),
        ("smollm2", {}, SINGLE[1:], "the assistant speaks first"),
        (
            "qwen3",
            {"enable_thinking": False},
            (SINGLE[0], _turn("assistant", "Hello", reasoning_content="Why not")),
            r"generation prompt does not begin its answer: turn 2: the prompt goes on with .*</think>.*Why not.*",
        ),
    ],
)
def test_a_chat_that_the_template_cannot_say(
    make_tokenizer: MakeTokenizer,
    family: str,
    arguments: dict[str, Any],
    messages: Sequence[dict[str, Any]],
    reason: str,
) -> None:
    with pytest.raises(Unusable, match=reason):
        _sequences(make_tokenizer(family), messages, **arguments)


def test_a_template_that_writes_no_assistant_turn(make_tokenizer: MakeTokenizer) -> None:
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    renderer = ChatRenderer(make_tokenizer(None), template)
    with pytest.raises(Unusable, match="the chat template writes nothing for an assistant turn"):
        renderer.render(Chat(SINGLE))


LEFT_OUT = "the chat template leaves out a part of the record: "


@pytest.mark.parametrize(
    ("template", "messages", "what"),
    [
        # A template that knows no functions would teach the model to say nothing.
        ("llama3", TOOLS, "a function call of turn 2; give a template"),
        (
            "llama3",
            (SINGLE[0], _turn("assistant", "Hello", reasoning_content="Why not")),
            "the reasoning_content of turn 2",
        ),
        # DeepSeek-R1's template drops the reasoning of every turn.
        (
            "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}",
            (SINGLE[0], _turn("assistant", "<think>\nWhy not\n</think>\n\nHello")),
            "the content of turn 2",
        ),
        # Phi-3's first template.
        (
            "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}",
            SYSTEM,
            "the system text in turn 1",
        ),
    ],
)
def test_what_the_template_leaves_out_is_not_thought_to_be_learned(
    make_tokenizer: MakeTokenizer, template: str, messages: Sequence[dict[str, Any]], what: str
) -> None:
    tokenizer = make_tokenizer(template if template.isalnum() else None)
    tokenizer.chat_template = tokenizer.chat_template or template
    with pytest.raises(Unusable, match=LEFT_OUT + what):
        _sequences(tokenizer, messages)


def test_tools_that_the_template_does_not_write(make_tokenizer: MakeTokenizer) -> None:
    renderer, tools = ChatRenderer(make_tokenizer("llama3")), ({"type": "function", "function": {"name": "Ask"}},)
    for chat in (Chat(SINGLE, tools), Chat(SINGLE[:1], tools)):
        with pytest.raises(Unusable, match=LEFT_OUT + "the tools"):
            renderer.render(chat) if len(chat.messages) > 1 else renderer.prompt(chat)
    told = Chat((_turn("system", "Ask: to ask"), *SINGLE), tools)  # as in Hermes' data
    assert renderer.render(told)


def test_reasoning_in_the_content_is_learned(make_tokenizer: MakeTokenizer) -> None:
    answer = _turn("assistant", "<think>\nWhy not\n</think>\n\nHello")
    [[run]] = _runs(make_tokenizer("llama3"), (SINGLE[0], answer))
    assert "".join(run) == answer["content"] + "<|eot_id|>"


def test_a_given_template_replaces_the_tokenizers(make_tokenizer: MakeTokenizer) -> None:
    template = "{% for m in messages %}{{ m.content }}{{ mark }}{% endfor %}"
    [rendered] = ChatRenderer(make_tokenizer("llama3"), template, {"mark": "|"}).render(Chat(SINGLE))
    assert (rendered.text, rendered.spans) == ("Hi there|Hello|", ((9, 15),))


def test_a_template_that_is_not_jinja_is_a_fault_of_the_job(make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(SpecError, match=r"not valid Jinja, line 2: .*Correct data.chatTemplate"):
        ChatRenderer(make_tokenizer(None), "ok\n{% for %}").render(Chat(SINGLE))


def test_an_expression_that_fails_on_a_record_costs_that_record(make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(Unusable, match="the chat template refuses the record: can only concatenate"):
        ChatRenderer(make_tokenizer(None), "{{ messages[0].content + 1 }}").render(Chat(SINGLE))


def test_the_prompt_of_the_last_turn(make_tokenizer: MakeTokenizer) -> None:
    renderer = ChatRenderer(make_tokenizer("mistral"))
    assert renderer.prompt(Chat(MULTI)) == "<s>[INST] Hi there[/INST] Hello</s>[INST] Ask again[/INST]"
    assert renderer.prompt(Chat(MULTI[:3])) == renderer.prompt(Chat(MULTI)), "not answered yet"


def test_a_tokenizer_without_template_is_a_fault_of_the_job(make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(SpecError, match=r"no chat template. Give one in data.chatTemplate"):
        ChatRenderer(make_tokenizer(None))
