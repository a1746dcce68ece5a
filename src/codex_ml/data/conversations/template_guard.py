"""Keeps a chat template, which is a program from elsewhere, within bounds of time, memory and arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from codex_ml.errors import DataError
from codex_ml.limits import LimitExceededError, limited

Result = TypeVar("Result")

# The longest templates of known models are a tenth of it.
MAX_TEMPLATE_CHARACTERS = 256 << 10
# For one conversation; known templates take milliseconds, and some times its length.
RENDER_CPU_SECONDS = 5.0
RENDER_EXTRA_BYTES = 1 << 30
# A text may be repeated as often; without a bound on it, a line of two products fills the memory.
_LARGEST_FACTOR = 10_000
_GENERATION_TAGS = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
_FIX = "use the chat template of the model as it was published; this one is made to harm"


def check_template(template: str) -> None:
    """Refuse a template whose single operations could not be broken off: powers, and products without a small factor.

    Loops are bounded in time when it is rendered; the sandbox of Jinja refuses the attributes that lead to code.

    Raises
    ------
    DataError
        If it holds one, or is too long or too deep to be looked at. What is no template at all is left to rendering.
    """
    from jinja2 import Environment, TemplateError, nodes

    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise _refused(f"it is longer than {MAX_TEMPLATE_CHARACTERS} characters")
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])  # nosec B701: only parsed, never rendered
    try:
        with limited(RENDER_CPU_SECONDS, RENDER_EXTRA_BYTES):
            tree = environment.parse(_GENERATION_TAGS.sub("", template))
            if next(tree.find_all(nodes.Pow), None) is not None:
                raise _refused("it holds a power (**), which can be a number of any length")
            if not all(_has_small_factor(product) for product in tree.find_all(nodes.Mul)):
                raise _refused(f"it holds a product without a constant factor up to {_LARGEST_FACTOR}")
    except TemplateError:
        return
    except (RecursionError, MemoryError, LimitExceededError) as error:
        raise _refused("it is nested too deep, or too long to be read") from error


def names_in_template(template: str) -> frozenset[str]:
    """Return the names that a template asks for, such as ``messages``; none where it is no template at all."""
    from jinja2 import Environment, TemplateError, nodes

    environment = Environment(extensions=["jinja2.ext.loopcontrols"])  # nosec B701: only parsed, never rendered
    try:
        tree = environment.parse(_GENERATION_TAGS.sub("", template))
    except TemplateError:
        return frozenset()
    return frozenset(name.name for name in tree.find_all(nodes.Name))


def render_guarded(render: Callable[[], Result]) -> Result:
    """Return what a rendering gives, within bounds on its time and memory.

    Raises
    ------
    ValueError
        If the template refuses the conversation, or fails on it; the message holds nothing of the conversation.
    DataError
        If it goes beyond the bounds: every other conversation would cost as much.
    """
    try:
        with limited(RENDER_CPU_SECONDS, RENDER_EXTRA_BYTES):
            return render()
    except LimitExceededError as error:
        raise _refused(f"rendering one conversation took {error}") from error
    except MemoryError as error:
        raise _refused(f"rendering one conversation needs more than {RENDER_EXTRA_BYTES >> 20} MiB") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, SyntaxError, TypeError) as error:
        raise ValueError(f"the chat template fails on this conversation ({type(error).__name__})") from None


def _has_small_factor(product: Any) -> bool:
    from jinja2 import nodes

    return any(
        isinstance(side, nodes.Const) and isinstance(side.value, int | float) and abs(side.value) <= _LARGEST_FACTOR
        for side in (product.left, product.right)
    )


def _refused(why: str) -> DataError:
    return DataError("the tokenizer's chat template is refused", why=why, fix=_FIX)
