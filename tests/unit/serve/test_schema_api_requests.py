"""Tests of what a request may ask for."""

from __future__ import annotations

from typing import Any

import pytest

from codex_ml.serve.schema import ApiError, ChatRequest, CompletionRequest, parse_request

CHAT: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "private words"}]}
COMPLETION: dict[str, Any] = {"model": "base", "prompt": "private words"}


def test_parse_request_supported_fields_are_kept() -> None:
    """What is supported arrives."""
    request = parse_request(ChatRequest, {**CHAT, "stop": "end", "seed": 3, "max_completion_tokens": 5, "top_p": 1})
    assert (request.stop_strings(), request.seed, request.most_tokens(), request.top_p) == (("end",), 3, 5, 1)
    assert parse_request(CompletionRequest, COMPLETION).most_tokens() == 16
    assert parse_request(CompletionRequest, {**COMPLETION, "stop": ["a", "b"]}).stop_strings() == ("a", "b")


@pytest.mark.parametrize(
    "more", [{"n": 1}, {"frequency_penalty": 0.0}, {"logprobs": False}, {"tools": []}, {"logit_bias": None}]
)
def test_parse_request_unsupported_at_neutral_value_passes(more: dict[str, Any]) -> None:
    """A value that asks for nothing needs no support."""
    parse_request(ChatRequest, {**CHAT, **more})


@pytest.mark.parametrize(
    "more",
    [{"n": 2}, {"n": True}, {"logprobs": 0}, {"presence_penalty": 0.5}, {"tools": [{}]}, {"tool_choice": "auto"}],
)
def test_parse_request_unsupported_is_refused_by_name(more: dict[str, Any]) -> None:
    """Everything else is a 400 that names the parameter."""
    with pytest.raises(ApiError) as caught:
        parse_request(ChatRequest, {**CHAT, **more})
    error = caught.value.body()["error"]
    assert (caught.value.status, error["param"], error["code"]) == (400, next(iter(more)), "unsupported_parameter")


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"max_tokens": 0},
        {"max_tokens": "7"},
        {"stop": ""},
        {"stop": ["a"] * 5},
        {"stream_options": {"include_usage": True}},
        {"max_tokens": 1, "max_completion_tokens": 2},
        {"messages": []},
        {"messages": [{"role": "user", "content": ["private words"]}]},
        {"private words": 1},
    ],
)
def test_parse_request_bad_value_is_refused_without_content(more: dict[str, Any]) -> None:
    """A bad value is a 400 that repeats nothing of the request."""
    with pytest.raises(ApiError) as caught:
        parse_request(ChatRequest, {**CHAT, **more})
    assert caught.value.status == 400
    assert "private words" not in str(caught.value.body())
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("body", [None, [], "text", 1])
def test_parse_request_no_object_is_refused(body: object) -> None:
    """A body must be an object."""
    with pytest.raises(ApiError):
        parse_request(CompletionRequest, body)
