"""Chat templates from a stranger: the sandbox keeps them from code, and bounds from time and memory without end."""

from __future__ import annotations

import copy
import resource
import time

import pytest

from codex_ml.data.records.chat import Message
from codex_ml.data.tokenization.chat import ChatRenderer
from codex_ml.data.tokenization.chat_template import RENDER_CPU_SECONDS, RENDER_EXTRA_BYTES
from codex_ml.errors import DataError

pytestmark = pytest.mark.timeout(300)
MESSAGES = [Message(role="user", content="Hello"), Message(role="assistant", content="Good day")]
SOUND = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ '-' * 3 }}\n{% endfor %}"


@pytest.fixture
def render(tiny_tokenizer):
    """Return what renders a conversation with a template, within the time and memory that are promised."""

    def rendered(template: str) -> str:
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.chat_template = template
        started, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            return "".join(s.text for s in ChatRenderer(tokenizer, []).conversation(MESSAGES).segments)
        finally:
            assert time.process_time() - started < RENDER_CPU_SECONDS + 60.0
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak  # KiB
            assert grown << 10 < RENDER_EXTRA_BYTES * 1.2

    return rendered


def test_sound_template_renders(render):
    """Bounds take nothing from a template as models have them."""
    assert "<assistant>Good day---" in render(SOUND)


@pytest.mark.parametrize(
    "expression",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['os'].mkdir('CANARY') }}",
        "{{ cycler.__init__.__globals__.os.mkdir('CANARY') }}",
        "{{ self._TemplateReference__context }}{{ self.__init__.__globals__ }}",
        "{{ ''|attr('__class__') }}{{ (''|attr('__class__')).mro() }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}",
        "{% extends '/etc/passwd' %}",
        "{{ 1 / 0 }}",
        "{{ 1 + 'a' }}",
        "{{ nobody.at.all }}",
        "{% endfor %}",
        "{{ range(1000000000) }}",
    ],
)
def test_template_that_reaches_for_code_or_fails_is_refused(render, tmp_path, expression):
    """The record is refused with a message that holds none of it; nothing is made on the disk."""
    canary = tmp_path / "canary"
    with pytest.raises(ValueError, match="chat template") as caught:
        render(expression.replace("CANARY", str(canary)) + SOUND)
    assert "Good day" not in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ 10 ** 1000000000 }}", "power"),
        ("{{ 'a' * 100000000000 }}", "product"),
        ("{% set x = 9 %}{{ x * x * x }}", "product"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deep"),
        ("x" * (300 << 10), "longer than"),
    ],
    ids=["power", "product", "square", "deep", "long"],
)
def test_template_with_unbounded_arithmetic_is_refused_unrendered(render, template, why):
    """What could not be broken off once it runs is refused by its text."""
    with pytest.raises(DataError) as caught:
        render(template)
    assert why in caught.value.why


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "why"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"
            "{% endfor %}",
            "processor time",
        ),
        (
            "{% set n = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "MiB",
        ),
        ("{{ 'a'.ljust(100000000000) }}", "MiB"),
        ("{{ '%100000000000d' % 1 }}", "MiB"),
        ("{{ '{:100000000000d}'.format(1) }}", "MiB"),
        ("{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
    ],
    ids=["loops", "doubling", "ljust", "percent", "format", "recursion"],
)
def test_template_without_end_is_stopped(render, template, why):
    """Loops and growing texts end at the bound, and with them the run: every record would cost as much."""
    with pytest.raises((DataError, ValueError)) as caught:
        render(template)
    assert why in f"{caught.value} {getattr(caught.value, 'why', '')}"
