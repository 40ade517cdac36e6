"""What LiteLLM gets of the server at argv 1, with the picture of argv 2 (a data: URL), as one JSON document."""

import asyncio
import json
import sys
from typing import Any

import litellm  # from requirements/clients.txt

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
HI = [{"role": "user", "content": "hi"}]


def main(url: str, picture: str) -> dict[str, Any]:
    """Every kind of request that LiteLLM has for a server of OpenAI's dialect."""
    litellm.suppress_debug_info = True  # it goes to stdout
    server: dict[str, Any] = {"model": "openai/demo", "api_base": f"{url}/v1", "api_key": "not-used", "num_retries": 0}
    quiet = {**server, "extra_body": {"chat_template_kwargs": {"thinking": False}}, "max_tokens": 256, "temperature": 0}
    shown = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": picture}}]
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY, "strict": True}}
    tool = {"type": "function", "function": {"name": "visit", "strict": True, "parameters": CITY}}

    message = litellm.completion(messages=HI, **server).choices[0].message
    stream = litellm.completion(messages=HI, stream=True, **quiet)
    called = litellm.completion(messages=HI, tools=[tool], tool_choice="required", **quiet).choices[0].message
    text = {**server, "model": "text-completion-openai/demo", "max_tokens": 8}
    whole = litellm.responses(input="hi", **server)
    anthropic = asyncio.run(litellm.anthropic_messages(messages=HI, **{**server, "max_tokens": 64}))
    try:
        litellm.completion(messages=HI, temperature=9, **server)
        refused = "not refused"
    except litellm.exceptions.BadRequestError as error:
        refused = type(error).__name__
    return {
        "chat": {"content": message.content.strip(), "reasoning": (message.reasoning_content or "").strip()},
        "image": litellm.completion(messages=[{"role": "user", "content": shown}], **quiet).choices[0].message.content,
        "stream": "".join(chunk.choices[0].delta.content or "" for chunk in stream),
        "form": litellm.completion(messages=HI, response_format=form, **quiet).choices[0].message.content,
        "tool": called.tool_calls[0].function.model_dump(),
        "completion": litellm.text_completion(prompt="one", **text).choices[0].text,
        "responses": "".join(p.text for item in whole.output if item.type == "message" for p in item.content).strip(),
        "messages": "".join(b["text"] for b in anthropic["content"] if b["type"] == "text").strip(),
        "refused": refused,
    }


if __name__ == "__main__":
    json.dump(main(sys.argv[1], sys.argv[2]), sys.stdout)
