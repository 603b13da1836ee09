"""How long a caller is ready to wait: the X-Request-Deadline-Ms header, capped by a setting."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from app.api.errors import Refusal

HEADER = "x-request-deadline-ms"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: what is assumed of a caller who says nothing, and the most that is granted."""

    default_s: float
    most_s: float

    def of(self, request: Request, *, otherwise_s: float | None = None) -> float:
        """`otherwise_s` instead of the default, for a caller who says nothing.

        Raises Refusal invalid_parameter if the header is not a whole number of milliseconds.
        """
        said = request.headers.get(HEADER)
        if said is None:
            return self.default_s if otherwise_s is None else otherwise_s
        if not (said.isascii() and said.isdigit() and 0 < len(said) <= 9 and int(said) > 0):
            raise Refusal(
                "invalid_parameter", "Give the deadline as whole milliseconds, at least 1.", part=HEADER
            )
        return min(int(said) / 1000, self.most_s)
