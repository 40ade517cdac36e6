"""The demo model's chat template: the turns, tool sections, media marks and thinking switch of Kimi-K2.5, in our words.

A turn is `<|im_ROLE|>NAME<|im_middle|>CONTENT<|im_end|>`. Tools stand first, as JSON in a `tool_declare` system turn; a
tool's result is a system turn too. `thinking: false` closes the thought before the answer begins. Thoughts of earlier
answers are dropped, except those that led to tool calls after the last user turn.
"""

CHAT_TEMPLATE = """\
{%- macro render_content(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- elif content -%}
    {%- for part in content -%}
      {%- if part.type in ['image', 'image_url'] -%}
        {{- '<|media_begin|>image<|media_content|><|media_pad|><|media_end|>' -}}
      {%- elif part.type in ['video', 'video_url'] -%}
        {{- '<|kimi_k25_video_placeholder|>' -}}
      {%- else -%}
        {{- part.text -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}

{%- macro render_tool_calls(calls) -%}
  {{- '<|tool_calls_section_begin|>' -}}
  {%- for call in calls -%}
    {%- set arguments = call.function.arguments -%}
    {{- '<|tool_call_begin|>' + (call.id or 'functions.' + call.function.name + ':' + loop.index0|string) -}}
    {{- '<|tool_call_argument_begin|>' + (arguments if arguments is string else arguments|tojson) -}}
    {{- '<|tool_call_end|>' -}}
  {%- endfor -%}
  {{- '<|tool_calls_section_end|>' -}}
{%- endmacro -%}

{%- if tools -%}
  {{- '<|im_system|>tool_declare<|im_middle|>' + tools|tojson + '<|im_end|>' -}}
{%- endif -%}

{%- set turn = namespace(last_user=-1) -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}{%- set turn.last_user = loop.index0 -%}{%- endif -%}
{%- endfor -%}

{%- for message in messages -%}
  {%- if message.role == 'user' -%}
    {{- '<|im_user|>' + (message.name or 'user') + '<|im_middle|>' -}}
    {{- render_content(message.content) -}}
  {%- elif message.role == 'assistant' -%}
    {{- '<|im_assistant|>' + (message.name or 'assistant') + '<|im_middle|>' -}}
    {%- set thought = message.reasoning_content or message.reasoning or '' -%}
    {{- '<think>' + (thought if message.tool_calls and loop.index0 > turn.last_user else '') + '</think>' -}}
    {{- render_content(message.content) -}}
    {%- if message.tool_calls -%}{{- render_tool_calls(message.tool_calls) -}}{%- endif -%}
  {%- elif message.role == 'tool' -%}
    {{- '<|im_system|>' + (message.name or 'tool') + '<|im_middle|>' -}}
    {{- 'Result of ' + (message.tool_call_id or 'the call') + ':\\n' -}}
    {{- render_content(message.content) -}}
  {%- else -%}
    {{- '<|im_system|>' + (message.name or message.role) + '<|im_middle|>' -}}
    {{- render_content(message.content) -}}
  {%- endif -%}
  {{- '<|im_end|>' -}}
{%- endfor -%}

{%- if add_generation_prompt -%}
  {{- '<|im_assistant|>assistant<|im_middle|><think>' -}}
  {%- if thinking is defined and not thinking -%}{{- '</think>' -}}{%- endif -%}
{%- endif -%}
"""
