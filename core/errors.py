"""Every error the platform raises on purpose.

PlatformError                   500  internal
├── BadRequest                  400  bad_request
│   └── MalformedBody           400  malformed_body
├── Unauthenticated             401  unauthenticated
├── Forbidden                   403  forbidden
│   ├── SecondFactorRequired    403  second_factor_required
│   └── PasswordChangeRequired  403  password_change_required
├── NotFound                    404  not_found
│   ├── ModelNotFound           404  model_not_found
│   └── SourceNotFound          404  source_not_found
├── Conflict                    409  conflict
├── TooLarge                    413  too_large
├── UnsupportedMedia            415  unsupported_media
├── Unprocessable               422  unprocessable
│   ├── InvalidInput            422  invalid_input
│   ├── InvalidPackage          422  invalid_package
│   └── InvalidPipeline         422  invalid_pipeline
├── LimitExceeded               429  limit_exceeded
├── Unavailable                 503  unavailable
│   ├── NotReady                503  not_ready
│   ├── LimitsUnavailable       503  limits_unavailable
│   ├── NoRoom                  503  no_room
│   ├── QueueFull               503  queue_full
│   ├── StorageFull             507  storage_full
│   ├── SourceUnavailable       503  source_unavailable
│   ├── TooManyConnections      503  too_many_connections
│   └── ShuttingDown            503  shutting_down
├── DeadlineExceeded            504  deadline_exceeded
└── EngineError                 500  engine_error
    ├── EngineUnavailable       503  engine_unavailable
    ├── ConversionFailed        422  conversion_failed
    ├── TrialFailed             422  trial_failed
    ├── LoadFailed              500  load_failed
    └── RunFailed               500  run_failed

A message is one sentence for the caller. It never holds a path, an address, a stack, SQL, or the name of a
model that the caller may not see.
"""

from __future__ import annotations

from typing import ClassVar


class PlatformError(Exception):
    """The root: an error with an HTTP status, a stable code, and a sentence that may be shown to the caller."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s

    def headers(self) -> dict[str, str]:
        """Response headers that go with this error, `Retry-After` in whole seconds among them."""
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(max(1, round(self.retry_after_s)))}


class BadRequest(PlatformError):
    """The request breaks the rules of its protocol."""

    status, code = 400, "bad_request"


class MalformedBody(BadRequest):
    """The body cannot be parsed as what it claims to be."""

    code = "malformed_body"


class Unauthenticated(PlatformError):
    """No credentials, or none that are valid."""

    status, code = 401, "unauthenticated"

    def headers(self) -> dict[str, str]:
        """Name the scheme, as RFC 9110 section 11.6.1 asks."""
        return {**super().headers(), "WWW-Authenticate": "Bearer"}


class Forbidden(PlatformError):
    """Known, but not allowed to do this."""

    status, code = 403, "forbidden"


class SecondFactorRequired(Forbidden):
    """Signed in by half: the password was right, and the code of the second factor is still to come."""

    code = "second_factor_required"


class PasswordChangeRequired(Forbidden):
    """Signed in with a password that somebody else has chosen, and that must be changed before anything else."""

    code = "password_change_required"


class NotFound(PlatformError):
    """There is no such thing, or none that this caller may see."""

    status, code = 404, "not_found"


class ModelNotFound(NotFound):
    """There is no such model or version that this caller may see."""

    code = "model_not_found"


class SourceNotFound(NotFound):
    """A source of models holds no such thing."""

    code = "source_not_found"


class Conflict(PlatformError):
    """The state of the thing forbids this change."""

    status, code = 409, "conflict"


class TooLarge(PlatformError):
    """The body, a part of it, or what it unpacks to is over a cap."""

    status, code = 413, "too_large"


class UnsupportedMedia(PlatformError):
    """The bytes are of a kind that is not accepted here."""

    status, code = 415, "unsupported_media"


class Unprocessable(PlatformError):
    """Well-formed, but wrong for its purpose."""

    status, code = 422, "unprocessable"


class InvalidInput(Unprocessable):
    """Well-formed, but wrong for this model: the message names the input, what was expected and what came."""

    code = "invalid_input"


class InvalidPackage(Unprocessable):
    """An uploaded model or manifest that cannot be accepted."""

    code = "invalid_package"


class InvalidPipeline(Unprocessable):
    """A pipeline's definition that cannot be accepted; the message gives the line of the first problem."""

    code = "invalid_pipeline"


class LimitExceeded(PlatformError):
    """A rate limit or quota is used up."""

    status, code = 429, "limit_exceeded"


class Unavailable(PlatformError):
    """Cannot be done now; trying again later may work."""

    status, code = 503, "unavailable"


class NotReady(Unavailable):
    """The model, or this version of it, should serve and does not yet."""

    code = "not_ready"


class LimitsUnavailable(Unavailable):
    """What counts the limits cannot be asked now, and `access.limits_on_failure` says to refuse then."""

    code = "limits_unavailable"


class NoRoom(Unavailable):
    """The memory budget has no room for the model, and cannot have it now."""

    code = "no_room"


class QueueFull(Unavailable):
    """The model's queue has no room for this request."""

    code = "queue_full"


class StorageFull(Unavailable):
    """The disk has no room."""

    status, code = 507, "storage_full"


class SourceUnavailable(Unavailable):
    """A source of models cannot be reached now, or broke off."""

    code = "source_unavailable"


class TooManyConnections(Unavailable):
    """The process holds as many connections as it may."""

    code = "too_many_connections"


class ShuttingDown(Unavailable):
    """The server or the deployment is stopping."""

    code = "shutting_down"


class DeadlineExceeded(PlatformError):
    """The request's deadline passed before its answer was ready."""

    status, code = 504, "deadline_exceeded"


class EngineError(PlatformError):
    """An engine could not do its work."""

    code = "engine_error"


class EngineUnavailable(EngineError):
    """The engine's library or device is not on this machine; the message says what to install."""

    status, code = 503, "engine_unavailable"


class ConversionFailed(EngineError):
    """A model could not be turned into another form; the message says why, or what to install."""

    status, code = 422, "conversion_failed"


class TrialFailed(EngineError):
    """A way to run a model could not be measured; the message says why."""

    status, code = 422, "trial_failed"


class LoadFailed(EngineError):
    """The engine could not load the artifact."""

    code = "load_failed"


class RunFailed(EngineError):
    """The engine raised while running a batch."""

    code = "run_failed"
