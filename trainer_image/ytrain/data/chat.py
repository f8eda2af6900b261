"""Renders a chat with the tokenizer's template and finds which characters the assistant must learn to write.

A turn's characters are the difference between the prompt, rendered with the generation prompt, and the prompt with the
answer. So any template works, whether or not it marks its answers; where a template breaks the rule, it is said.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jinja2.exceptions import TemplateError, TemplateSyntaxError

from ytrain.data.records import REASONING_KEYS, Chat, Message, Rendered, Unusable
from ytrain_api.errors import SpecError

if TYPE_CHECKING:
    # Not wanted in the processes that encode texts: it takes seconds and much memory to import.
    from transformers import PreTrainedTokenizerBase

Supervise = Literal["allAssistantTurns", "lastTurn"]


class ChatRenderer:
    """Renders chats with one template.

    Args:
        tokenizer: whose chat template and special tokens are used.
        template: Jinja text that replaces the tokenizer's template.
        arguments: variables for the template, such as `enable_thinking`.

    Raises:
        SpecError: there is no template.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        if template is None and tokenizer.chat_template is None:
            raise SpecError(
                f"the tokenizer of {tokenizer.name_or_path or 'the model'} has no chat template. Give one in"
                " data.chatTemplate, or start from the model's instruction-tuned version."
            )
        self._tokenizer = tokenizer
        self._template = template
        self._arguments = dict(arguments or {})
        added = (token.content for token in tokenizer.added_tokens_decoder.values())
        self._marks = tuple(token for token in added if token.strip())

    def render(self, chat: Chat, supervise: Supervise = "allAssistantTurns") -> list[Rendered]:
        """One text with every supervised turn, or one text a turn where the template rewrites earlier turns.

        Thinking templates drop the reasoning of earlier turns, so that the turn as it was generated is not part of the
        whole conversation's rendering. Such a chat becomes one text for each supervised turn, each as at inference.

        White space that the template writes after an answer's closing special token is not supervised: generation
        stops at that token and never writes it. What follows the last supervised character is left out.
        A turn of weight 0 is context, and so is a chat's first, which has no prompt, where another follows.

        Raises:
            Unusable: the template refuses the chat, leaves a part of it out, or its generation prompt does not begin
                the answer; no turn is to be learned.
            SpecError: the template is not valid Jinja.
        """
        ends = [index + 1 for index, message in enumerate(chat.messages) if message["role"] == "assistant"]
        if supervise == "lastTurn":
            ends = ends[-1:]
        learned = [end for end in ends if chat.messages[end - 1].get("weight", 1)]
        if not learned:
            raise Unusable("no assistant turn to learn", "all have weight 0")
        if learned[0] == 1 and len(learned) > 1:
            del learned[0]
        turns = [self._turn(chat, end) for end in learned]
        _check_context(chat, turns[-1][0], learned[-1])
        whole = turns[-1][1]
        if all(whole.startswith(text) for _, text in turns):
            return [_learned(whole, [self._span(prompt, text) for prompt, text in turns])]
        return [_learned(text, [self._span(prompt, text)]) for prompt, text in turns]

    def prompt(self, chat: Chat) -> str:
        """What the model is given to write the assistant's last turn, or the next one where the last is another's.

        Raises:
            Unusable: nothing precedes the turn, or the template refuses the chat.
        """
        if chat.messages[-1]["role"] != "assistant":
            prompt = self._apply(chat, chat.messages, generation_prompt=True)
            _check_context(chat, prompt, len(chat.messages))
            return prompt
        return self._turn(chat, len(chat.messages))[0]

    def answered(self) -> str:
        """A short chat up to the end of its answer, to see what the template ends an answer with."""
        (rendered,) = self.render(Chat(({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})))
        return rendered.text

    def _turn(self, chat: Chat, end: int) -> tuple[str, str]:
        """The prompt of the assistant turn before `end`, and the prompt with the answer."""
        if end == 1:
            raise Unusable("the assistant speaks first", "no turn precedes its answer")
        prompt = self._apply(chat, chat.messages[: end - 1], generation_prompt=True)
        text = self._apply(chat, chat.messages[:end], generation_prompt=False)
        if not text.startswith(prompt):
            at = next(i for i, (a, b) in enumerate(zip(prompt, text + "\0", strict=False)) if a != b)
            raise Unusable(
                "the chat template's generation prompt does not begin its answer",
                f"turn {end}: the prompt goes on with {prompt[at : at + 40]!r}, the answer with {text[at : at + 40]!r};"
                " set data.chatTemplateArgs (such as enable_thinking) or data.chatTemplate",
            )
        if len(text) == len(prompt):
            raise Unusable("the chat template writes nothing for an assistant turn", f"turn {end}")
        for what, part in _said(chat.messages[end - 1]):
            if part not in text[len(prompt) :]:
                raise _left_out(f"{what} of turn {end}")
        return prompt, text

    def _apply(self, chat: Chat, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=[dict(tool) for tool in chat.tools] or None,
                chat_template=self._template,
                add_generation_prompt=generation_prompt,
                tokenize=False,
                **self._arguments,
            )
        except TemplateSyntaxError as error:
            raise SpecError(
                f"the chat template is not valid Jinja, line {error.lineno}: {error.message}. Correct"
                " data.chatTemplate, or the model's chat_template.jinja."
            ) from error
        except (TemplateError, TypeError, ValueError) as error:  # the latter two from expressions in the template
            raise Unusable("the chat template refuses the record", str(error)) from error
        assert isinstance(text, str)
        return text

    def _span(self, prompt: str, text: str) -> tuple[int, int]:
        closed = text.rstrip()
        end = len(closed) if closed.endswith(self._marks) and len(closed) > len(prompt) else len(text)
        return len(prompt), end


def _said(message: Message) -> Iterator[tuple[str, str]]:
    """What an assistant's turn says, in the pieces that templates arrange: each with what it is."""
    for piece in re.split("</?think>", message["content"]):
        yield "the content", piece.strip()
    for key in REASONING_KEYS:
        if isinstance(message.get(key), str):
            yield f"the {key}", message[key].strip()
    for call in message.get("tool_calls", ()):
        yield "a function call", call["function"]["name"]


def _check_context(chat: Chat, prompt: str, end: int) -> None:
    """A system text or function that the model would never see must not be thought to have been learned from."""
    for turn, message in enumerate(chat.messages[:end], start=1):
        if message["role"] == "system" and message["content"].strip() not in prompt:
            raise _left_out(f"the system text in turn {turn}")
    for tool in chat.tools:
        if tool.get("function", {}).get("name", "") not in prompt:
            raise _left_out("the tools")


def _left_out(what: str) -> Unusable:
    return Unusable(
        "the chat template leaves out a part of the record",
        f"{what}; give a template that writes it (data.chatTemplate), or bring the record into the form that the"
        " model's template reads, or remove the part",
    )


def _learned(text: str, spans: Sequence[tuple[int, int]]) -> Rendered:
    """The text up to its last supervised character: no label depends on what follows."""
    return Rendered(text[: spans[-1][1]], tuple(spans))
