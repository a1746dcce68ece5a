"""Chat templates in the style of well-known model families, and what each makes of two conversations, by hand.

In a golden text ``⟦ ⟧`` stand around what is learned; they are no part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SYSTEM = {"role": "system", "content": "Be kind."}
# Blanks at the end and a decomposed letter: text that is kept as it stands must show them.
FIRST = [{"role": "user", "content": "Hi \n"}, {"role": "assistant", "content": "He\u0301llo."}]
SECOND = [{"role": "user", "content": "More?"}, {"role": "assistant", "content": "No."}]
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
TOOL_TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefghi", "name": "weather", "content": '{"mm": 4}'},
    {"role": "assistant", "content": "Yes."},
]
TOOL_JSON = (
    '{"type": "function", "function": {"name": "weather", "parameters": '
    '{"type": "object", "properties": {"city": {"type": "string"}}}}}'
)


@dataclass(frozen=True)
class Family:
    """A template, the control tokens of its tokenizer, and its golden texts (None: the family has no such turns)."""

    template: str
    special_tokens: tuple[str, ...]
    begin: str | None
    end: str
    chat: str
    tools: str | None = None
    has_system: bool = True


CHATML = Family(
    template="""{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '# Tools\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if message.content %}{{- message.content }}{%- endif %}
        {%- for call in message.tool_calls %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {%- if call.function.arguments is string %}{{- call.function.arguments }}
            {%- else %}{{- call.function.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}""",
    special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    begin=None,
    end="<|im_end|>",
    chat="<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi \n<|im_end|>\n<|im_start|>assistant\n"
    "⟦He\u0301llo.<|im_end|>⟧\n<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\n⟦No.<|im_end|>⟧\n",
    tools=f"<|im_start|>system\n# Tools\n<tools>\n{TOOL_JSON}\n</tools><|im_end|>\n"
    "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n"
    '⟦<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>⟧\n'
    '<|im_start|>user\n<tool_response>\n{"mm": 4}\n</tool_response><|im_end|>\n'
    "<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n",
)
MARKED_CHATML = Family(
    template=CHATML.template.replace(
        "{%- if message.content %}", "{%- generation %}{%- if message.content %}", 1
    ).replace(
        "{{- '<|im_end|>\\n' }}\n    {%- elif message.role == 'tool' %}",
        "{{- '<|im_end|>' }}{%- endgeneration %}{{- '\\n' }}\n    {%- elif message.role == 'tool' %}",
        1,
    ),
    special_tokens=CHATML.special_tokens,
    begin=None,
    end=CHATML.end,
    chat=CHATML.chat,
    tools=CHATML.tools,
)
LLAMA_2 = Family(
    template="""{% if messages[0]['role'] == 'system' %}
{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}
{% else %}{% set turns = messages %}{% set system = false %}{% endif %}
{% for message in turns %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{% if loop.index0 == 0 and system != false %}
{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}
{% else %}{% set content = message['content'] %}{% endif %}
{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' -}}
{% elif message['role'] == 'assistant' %}
{{ ' ' + content.strip() + ' ' + eos_token -}}
{% endif %}{% endfor %}""",
    special_tokens=("<s>", "</s>"),
    begin="<s>",
    end="</s>",
    chat="<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST]⟦ He\u0301llo. </s>⟧<s>[INST] More? [/INST]⟦ No. </s>⟧",
)
LLAMA_3 = Family(
    template="""{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}{{- 'Environment: ipython\\n' }}{%- endif %}
{{- system + '<|eot_id|>' }}
{%- for message in messages %}
    {%- if message.role == 'tool' or message.role == 'ipython' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception('This model only supports single tool-calls at once!') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}<|eot_id|>' }}
    {%- elif loop.first and tools is not none %}
        {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
        {%- for tool in tools %}{{- tool | tojson + '\\n\\n' }}{%- endfor %}
        {{- message.content | trim + '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}""",
    special_tokens=("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    begin="<|begin_of_text|>",
    end="<|eot_id|>",
    chat="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "⟦He\u0301llo.<|eot_id|>⟧<|start_header_id|>user<|end_header_id|>\n\nMore?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦No.<|eot_id|>⟧",
    tools="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n<|eot_id|>"
    f"<|start_header_id|>user<|end_header_id|>\n\n{TOOL_JSON}\n\nRain?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
    '⟦{"name": "weather", "parameters": {"city": "Köln"}}<|eot_id|>⟧'
    '<|start_header_id|>ipython<|end_header_id|>\n\n"{\\"mm\\": 4}"<|eot_id|>'
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Yes.<|eot_id|>⟧",
)
MISTRAL = Family(
    template="""{%- if messages[0]['role'] == 'system' %}
{%- set system = messages[0]['content'] %}{%- set turns = messages[1:] %}
{%- else %}{%- set turns = messages %}{%- endif %}
{{- bos_token }}
{%- for message in turns %}
{%- if message['role'] == 'user' %}
{%- if tools is not none and loop.first %}
{{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{%- endif %}
{%- if loop.first and system is defined %}{{- '[INST] ' + system + '\\n\\n' + message['content'] + '[/INST]' }}
{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}
{%- elif message.tool_calls is defined and message.tool_calls is not none %}
{{- '[TOOL_CALLS] [' }}
{%- for call in message.tool_calls %}
{%- set out = call.function | tojson %}{{- out[:-1] }}
{%- if call.id is undefined or call.id | length != 9 %}
{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{%- endif %}
{{- ', "id": "' + call.id + '"}' }}{%- if not loop.last %}{{- ', ' }}{%- endif %}
{%- endfor %}{{- ']' + eos_token }}
{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token }}
{%- elif message['role'] == 'tool' %}
{{- '[TOOL_RESULTS] {"content": ' + message.content + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- else %}{{- raise_exception('Only user and assistant roles are supported!') }}{%- endif %}
{%- endfor %}""",
    special_tokens=(
        *("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
        *("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    ),
    begin="<s>",
    end="</s>",
    chat="<s>[INST] Be kind.\n\nHi \n[/INST]⟦ He\u0301llo.</s>⟧[INST] More?[/INST]⟦ No.</s>⟧",
    tools=f"<s>[AVAILABLE_TOOLS] [{TOOL_JSON}][/AVAILABLE_TOOLS][INST] Rain?[/INST]"
    '⟦[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Köln"}, "id": "abcdefghi"}]</s>⟧'
    '[TOOL_RESULTS] {"content": {"mm": 4}, "call_id": "abcdefghi"}[/TOOL_RESULTS]⟦ Yes.</s>⟧',
)
GEMMA = Family(
    template="{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    special_tokens=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    begin="<bos>",
    end="<eos>",
    chat="<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n⟦He\u0301llo.<end_of_turn>⟧\n"
    "<start_of_turn>user\nMore?<end_of_turn>\n<start_of_turn>model\n⟦No.<end_of_turn>⟧\n",
    has_system=False,
)
# Closes every conversation with end-of-sequence, wherever it is broken off.
PHI = Family(
    template="{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    special_tokens=("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    begin=None,
    end="<|endoftext|>",
    chat="<|system|>\nBe kind.<|end|>\n<|user|>\nHi \n<|end|>\n<|assistant|>\n⟦He\u0301llo.<|end|>⟧\n"
    "<|user|>\nMore?<|end|>\n<|assistant|>\n⟦No.<|end|>\n<|endoftext|>⟧",
)
ZEPHYR = Family(
    template="{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    special_tokens=("<s>", "</s>"),
    begin="<s>",
    end="</s>",
    chat="<|system|>\nBe kind.</s>\n<|user|>\nHi \n</s>\n<|assistant|>\n⟦He\u0301llo.</s>⟧\n"
    "<|user|>\nMore?</s>\n<|assistant|>\n⟦No.</s>⟧\n",
)
# Writes arguments out as they stand (an object would come out as Python writes it), and no content beside calls.
DEEPSEEK = Family(
    template="{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' and message['content'] is none %}{{ '<|Assistant|>' }}"
    "{% for call in message['tool_calls'] %}{{ '<|call|>' + call['function']['name'] + '\n```json' + '\n'"
    " + call['function']['arguments'] + '\n' + '```' }}{% endfor %}{{ eos_token }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|Assistant|>' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'tool' %}{{ '<|result|>' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}",
    special_tokens=("<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>", "<|call|>", "<|result|>"),
    begin="<|begin|>",
    end="<|end|>",
    chat="<|begin|>Be kind.<|User|>Hi \n<|Assistant|>⟦He\u0301llo.<|end|>⟧<|User|>More?<|Assistant|>⟦No.<|end|>⟧",
    tools='<|begin|><|User|>Rain?<|Assistant|>⟦<|call|>weather\n```json\n{"city": "Köln"}\n```<|end|>⟧'
    '<|result|>{"mm": 4}<|Assistant|>⟦Yes.<|end|>⟧',
)
FAMILIES: dict[str, Family] = {
    "chatml": CHATML,
    "chatml_marked": MARKED_CHATML,
    "llama_2": LLAMA_2,
    "llama_3": LLAMA_3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "phi": PHI,
    "zephyr": ZEPHYR,
    "deepseek": DEEPSEEK,
}
