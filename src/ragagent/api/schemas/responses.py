"""A response: what it is asked, what it continues, and how it is wanted.

What has no meaning here is ignored, as everywhere. What would change the answer, or promise something, is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictStr

from ragagent.api.schemas.asking import Asking
from ragagent.api.schemas.body import Schema
from ragagent.api.schemas.fields import Metadata, Name
from ragagent.errors import Invalid

SPOKEN = ("input_text", "output_text", "refusal")

# Of what the others add to an item there is never one here: to include them is no promise. Log probabilities would be.
Includable = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
]


def _refused(reason: str, *, unless: Callable[[Any], bool] = lambda given: False) -> AfterValidator:
    def check(given: Any) -> Any:
        if unless(given):
            return given
        raise ValueError(reason)

    return AfterValidator(check)


def _is_search(choice: Any) -> bool:
    return choice in ("auto", "required") or (isinstance(choice, dict) and choice.get("type") == "file_search")


class InputPart(Schema):
    type: Name
    text: StrictStr | None = None
    refusal: StrictStr | None = None

    @property
    def words(self) -> str:
        return self.text or self.refusal or ""


class InputItem(Schema):
    type: Name = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: StrictStr | Annotated[list[InputPart], Field(max_length=1000, fail_fast=True)] | None = None

    def parts(self, position: int) -> list[str] | None:
        """Return the texts of a message, and None for a search of an earlier response, which is made anew.

        Raises Invalid for what is neither, and for what is not text.
        """
        if self.type == "file_search_call":
            return None
        if self.type != "message":
            raise Invalid(
                f"'input.{position}.type' has value '{self.type}'; it must be message or file_search_call.",
                param=f"input.{position}.type",
            )
        for name in ("role", "content"):
            if getattr(self, name) is None:
                param = f"input.{position}.{name}"
                raise Invalid(f"'{param}' is missing.", param=param, code="missing_required_parameter")
        if not isinstance(self.content, list):
            return [self.content or ""]
        for at, part in enumerate(self.content):
            if part.type not in SPOKEN:
                param = f"input.{position}.content.{at}.type"
                raise Invalid(f"'{param}' has value '{part.type}'; it must be one of {', '.join(SPOKEN)}.", param=param)
        return [part.words for part in self.content]


class TextFormat(Schema):
    type: Annotated[Name, _refused("only 'text' is supported", unless=lambda kind: kind == "text")] = "text"


class TextOptions(Schema):
    format: TextFormat = TextFormat()


class CreateResponse(Asking):
    input: StrictStr | Annotated[list[InputItem], Field(min_length=1, max_length=1000, fail_fast=True)]
    instructions: StrictStr | None = None
    previous_response_id: Name | None = None
    store: bool = True
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    include: Annotated[list[Includable], Field(max_length=16, fail_fast=True)] = Field(default_factory=list)
    parallel_tool_calls: bool = True
    text: TextOptions = TextOptions()
    tool_choice: Annotated[
        Any,
        _refused("must be 'auto', 'required' or file_search: an answer is always searched for", unless=_is_search),
    ] = "auto"
    background: Annotated[
        bool, _refused("is not supported: a response is made while its client waits", unless=lambda given: not given)
    ] = False
    conversation: Annotated[Any, _refused("is not supported; 'previous_response_id' continues a response")] = None
    prompt: Annotated[Any, _refused("is not supported; 'model' names a profile, which has instructions")] = None

    @property
    def wants_results(self) -> bool:
        return "file_search_call.results" in self.include
