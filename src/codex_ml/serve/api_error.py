"""An error as clients of the OpenAI interface read it: a status, and one JSON object."""

from __future__ import annotations


class ApiError(Exception):
    """A request that gets no answer.

    Parameters
    ----------
    status : int
        HTTP status.
    message : str
        What is wrong and what to do; holds no text of the request.
    param : str or None
        The parameter at fault.
    code : str or None
        A word for programs.
    retry_after_seconds : int or None
        When to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> dict[str, dict[str, str | None]]:
        """Return the JSON object that the client gets."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        return {} if self.retry_after_seconds is None else {"Retry-After": str(self.retry_after_seconds)}


def too_late() -> ApiError:
    """Return the error of a request whose time is over."""
    return ApiError(504, "the answer took longer than a request may take", code="timeout")
