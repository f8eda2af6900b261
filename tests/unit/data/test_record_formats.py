"""Each record's format is told by its own keys; what cannot be used says why."""

import math
from typing import Any

import pytest

from ytrain.data.formats import FORMATS, normalise
from ytrain.data.keys import RecordKind
from ytrain.data.records import Chat, Text, Unusable

pytestmark = pytest.mark.unit


def _chat(*turns: tuple[str, str]) -> Chat:
    return Chat(tuple({"role": role, "content": content} for role, content in turns))


QA = _chat(("user", "q"), ("assistant", "a"))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, QA),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, QA),
        ({"conversation": [{"role": "user", "content": "q"}, {"role": "bot", "content": "a"}]}, QA),
        ({"instruction": "q", "input": "", "output": "a"}, QA),
        ({"instruction": "q", "output": "a", "ID": 7}, QA),
        ({"instruction": "q", "input": "more", "output": "a"}, _chat(("user", "q\nmore"), ("assistant", "a"))),
        ({"instruction": "", "input": "q", "output": "a"}, QA),
        ({"prompt": "q", "response": "a"}, QA),
        ({"prompt": "q", "completion": "a"}, QA),
        (
            {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
            QA,
        ),
        ({"question": "q", "answer": "a"}, QA),
        ({"question": "2+2", "answer": 4}, _chat(("user", "2+2"), ("assistant", "4"))),
        ({"history": [["q", "a"]]}, QA),
        (
            {"history": [["q", "a"]], "instruction": "r", "output": "b"},
            _chat(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")),
        ),
        ({"system": "s", "prompt": "q", "response": "a"}, _chat(("system", "s"), ("user", "q"), ("assistant", "a"))),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "gpt", "value": "a"}]},
            QA,
        ),
        # The keys of Dolly, Magpie, FLAN and Aya, OpenOrca, MATH and NuminaMath, ms-swift.
        ({"instruction": "q", "context": "c", "response": "a"}, _chat(("user", "q\nc"), ("assistant", "a"))),
        ({"instruction": "q", "response": "a"}, QA),
        ({"input": "q", "output": "a"}, QA),
        ({"prompt": "q", "output": "a"}, QA),
        ({"inputs": "q", "targets": "a"}, QA),
        (
            {"system_prompt": "s", "question": "q", "response": "a"},
            _chat(("system", "s"), ("user", "q"), ("assistant", "a")),
        ),
        ({"problem": "q", "solution": "a", "answer": "7"}, QA),
        (
            {"query": "r", "response": "b", "history": [["q", "a"]]},
            _chat(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")),
        ),
        # Without the table, such an answer could only be guessed.
        (
            {"question": "q", "context": "CREATE TABLE t", "answer": "a"},
            _chat(("user", "q\nCREATE TABLE t"), ("assistant", "a")),
        ),
        # The same answer under two prompts is one answer.
        ({"instruction": "q", "output": "a", "prompt": "### Instruction: q"}, QA),
        ({"messages": [{"role": "User", "content": "q"}, {"role": "Assistant", "content": "a"}]}, QA),
        # Columns of two conventions, of which each row fills one.
        (
            {
                "messages": [
                    {"role": None, "content": None, "from": "human", "value": "q"},
                    {"role": "assistant", "content": "a", "from": None, "value": None},
                ]
            },
            QA,
        ),
        ({"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'}, QA),
        ({"text": "t"}, Text("t")),
        ({"output": "t", "ID": 1}, Text("t")),
        ({"instruction": "", "input": None, "output": "t"}, Text("t")),
        # Columnar files give every record the keys of all.
        ({"messages": None, "instruction": None, "question": "q", "answer": "a"}, QA),
        ({"instruction": "", "output": "", "question": "q", "answer": "a"}, QA),
        # pandas writes NaN for what is missing.
        ({"instruction": "q", "input": math.nan, "output": "a", "text": math.nan, "system": math.nan}, QA),
        (Text("t", ends=False), Text("t", ends=False)),
    ],
)
def test_the_format_is_told_by_the_keys(record: object, expected: object) -> None:
    assert normalise(record) == expected


ASKED = _chat(("user", "q"))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": [{"role": "user", "content": "q"}]}, ASKED),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, QA),
        ({"prompt": "q"}, ASKED),
        ({"prompt": "q", "answer": "for the reward alone"}, ASKED),
        ({"prompt": "q", "completion": ""}, ASKED),
        ({"prompt": "q", "completion": "a"}, QA),
        ({"prompt": [{"role": "user", "content": "q"}]}, ASKED),
        ({"question": "q", "answer": None}, ASKED),
        ({"problem": "q", "answer": "for the reward alone"}, ASKED),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, ASKED),
        ({"instruction": "q", "input": "more"}, _chat(("user", "q\nmore"))),
        ({"system": "s", "prompt": "q"}, _chat(("system", "s"), ("user", "q"))),
        (
            {"history": [["q", "a"]], "prompt": "r"},
            _chat(("user", "q"), ("assistant", "a"), ("user", "r")),
        ),
    ],
)
def test_a_prompt_need_not_be_answered(record: object, expected: object) -> None:
    assert normalise(record, kind="prompt") == expected
    if expected is ASKED:
        with pytest.raises(Unusable):
            normalise(record, kind="chat")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": " "}, "no known format"),
        ({"prompt": []}, "no known format"),
        ({"messages": []}, "nothing is asked"),
        ({"messages": [{"role": "system", "content": "s"}]}, "nothing is asked"),
        ({"text": "t"}, "plain text among chats"),
    ],
)
def test_a_prompt_asks_something(record: object, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        normalise(record, kind="prompt")


CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def test_tool_calls_and_other_entries_of_a_turn_are_kept() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", **CALL}], "reasoning_content": "r"}
    answer = {"role": "tool", "content": "5", "tool_call_id": "1", "name": None}
    tools = [{"type": "function", "function": {"name": "f"}}]
    record = {"messages": [{"role": "user", "content": "q"}, call, answer], "tools": tools}
    assert normalise(record) == Chat(
        (
            {"role": "user", "content": "q"},
            {**call, "content": ""},
            {"role": "tool", "content": "5", "tool_call_id": "1"},
        ),
        tuple(tools),
    )


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        # OpenAI's API gives arguments as JSON text, which templates would quote once more.
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": '{"x": 1}'}}]},
        {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": 1}}]},
        {"role": "assistant", "tool_calls": '[{"name": "f", "arguments": {"x": 1}}]'},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
    ],
)
def test_a_function_call_has_one_form(turn: dict[str, Any]) -> None:
    chat = normalise({"messages": [{"role": "user", "content": "q"}, turn]})
    assert isinstance(chat, Chat)
    assert chat.messages[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}


def test_a_function_call_stays_beside_what_is_said() -> None:
    turn = {"role": "assistant", "content": "a", "function_call": {"name": "f", "arguments": '{"x": 1}'}}
    chat = normalise({"messages": [{"role": "user", "content": "q"}, turn]})
    assert isinstance(chat, Chat)
    assert chat.messages[1] == {"role": "assistant", "content": "a", "tool_calls": [CALL]}


SCHEMA = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("entries", "tools"),
    [
        ({"tools": [SCHEMA]}, (SCHEMA,)),
        ({"tools": [SCHEMA["function"]]}, (SCHEMA,)),
        ({"functions": [SCHEMA["function"]]}, (SCHEMA,)),
        ({"tools": '[{"name": "f", "parameters": {}}]'}, (SCHEMA,)),
        ({"tools": "[]"}, ()),
        ({"tools": ""}, ()),
    ],
)
def test_tools_are_schemas_or_json_text_of_them(entries: dict[str, Any], tools: tuple[object, ...]) -> None:
    assert normalise({"prompt": "q", "response": "a", **entries}) == Chat(QA.messages, tools)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "system"),
    [
        ({"prompt": "q", "response": "a"}, "default"),
        ({"prompt": "q", "response": "a", "system": ""}, "default"),
        ({"prompt": "q", "response": "a", "system": "own"}, "own"),
        ({"messages": [{"role": "system", "content": "own"}, *QA.messages]}, "own"),
        ({"messages": [{"role": "system", "content": "own"}, *QA.messages], "system": "other"}, "own"),
    ],
)
def test_the_system_prompt_never_replaces_a_records_own(record: dict[str, Any], system: str) -> None:
    chat = normalise(record, system_prompt="default")
    assert isinstance(chat, Chat)
    assert [turn["content"] for turn in chat.messages] == [system, "q", "a"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([1, 2], "not an object with keys: found list"),
        ({"a": 1, "b": 2}, "no known format: keys a, b"),
        ({}, r"no known format: keys \(none\)"),
        ({"instruction": "q"}, "no known format: keys instruction"),
        ({"question": "q", "answer": "  "}, "empty answer: answer"),
        (
            {"question": "q", "answer": math.nan},
            "no known format: keys question; rename them to: messages or conversations; instruction and output or "
            "response; input and output; prompt and response or completion or output; query and response; inputs and "
            "targets; question and answer or response; problem and solution; history; text or output$",
        ),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "gpt", "content": math.nan}]}, "empty answer"),
        ({"history": [["q", math.nan]]}, "not text: "),
        ({"instruction": "q", "output": ""}, "empty answer: output"),
        ({"prompt": " ", "response": "a"}, "empty prompt: prompt"),
        ({"prompt": "q", "response": {"x": 1}}, "not text: response is dict"),
        ({"prompt": "q", "response": True}, "not text: response is bool"),
        ({"text": " "}, "empty text: text"),
        ({"messages": "q"}, "not a list of turns: messages"),
        ({"messages": []}, "no assistant turn"),
        ({"messages": [{"role": "user", "content": "q"}]}, "no assistant turn"),
        ({"messages": [{"role": "usr", "content": "q"}]}, r"unknown role: messages\[0\] has role 'usr'; known: system"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant"}]}, r"empty answer: messages\[1\]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            r"not text: the content of messages\[0\] is a list with a part of type 'image', and only text is learned",
        ),
        ({"history": [["q"]]}, "history is not a list of"),
        ({"history": []}, "no assistant turn"),
        ({"prompt": "q", "response": "a", "tools": [1]}, "tools is not a list"),
        ({"prompt": "q", "response": "a", "tools": "f"}, "not JSON: tools: Expecting value"),
        (
            {"messages": [{"role": "user", "text": "q"}, *QA.messages[1:]]},
            r"empty question: messages\[0\] has no content",
        ),
        (
            {"messages": [*QA.messages, {"from": "function_call", "value": "f(1)"}]},
            r"not JSON: the calls of messages\[2\]",
        ),
        ({"messages": [*QA.messages, {"role": "bot", "tool_calls": [{"id": "1"}]}]}, "a function call without name"),
        (
            {"messages": [*QA.messages, {"role": "bot", "tool_calls": [{"name": "f", "arguments": "[1]"}]}]},
            r"the arguments of a function call are not an object: messages\[2\]: list",
        ),
        (
            {"messages": [{**QA.messages[1], "weight": 0.5}]},
            r"a weight other than 0 and 1: messages\[0\] has weight 0.5",
        ),
        # What would be learned in another sense than it is meant.
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "a preference pair: keys prompt, chosen, rejected; answers"),
        ({"question": "q", "choices": ["a", "b"], "answer": 1}, "multiple choice: choices would not be seen; write"),
        (
            {"question": "q", "answer": "7", "response": "a"},
            "more than one answer: keys answer, response; remove all but",
        ),
        (
            {"prompt": "q", "response": "a", "question": "r", "answer": "b"},
            "more than one answer: keys response, answer",
        ),
        (
            {"question": "q", "reasoning": "r", "answer": "a"},
            "reasoning beside the answer: reasoning would not be learned",
        ),
        ({"prompt": "q", "completion": "a", "label": False}, "an answer marked as bad: label is false"),
    ],
)
def test_an_unusable_record_says_why(record: object, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        normalise(record)


@pytest.mark.parametrize(
    ("kind", "record", "reason"),
    [
        ("chat", {"text": "t"}, "plain text among chats: keys text; set format: text"),
        ("chat", {"output": "t"}, "plain text among chats"),
        ("chat", Text("t"), "plain text among chats: a text file"),
        ("text", {"prompt": "q", "response": "a"}, "a chat among plain texts"),
    ],
)
def test_a_method_gets_only_what_it_trains_on(kind: RecordKind, record: object, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        normalise(record, kind=kind)


def test_an_explicit_format_is_the_users_word() -> None:
    record = {"prompt": "q", "response": "a", "text": "t"}
    assert normalise(record, kind="chat", format="text") == Text("t")
    assert normalise(record, kind="text", format="promptResponse") == QA
    assert normalise(Text("t"), kind="chat", format="text") == Text("t")
    choice = {"question": "q", "choices": ["a", "b"], "answer": "a", "response": "b", "reasoning": "r"}
    assert normalise(choice, format="questionAnswer") == QA


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_a_record_without_the_keys_of_an_explicit_format(format: str) -> None:
    with pytest.raises(Unusable):
        normalise({"x": 1}, format=format)
