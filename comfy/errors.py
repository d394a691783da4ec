"""Every error that we raise on purpose: one tree, facts as fields, the docstring is the message.

`comfy/web/errors.py` is the one place that turns these into HTTP answers; no handler builds an error body by hand.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar


class ComfyError(Exception):
    """Something went wrong in the server."""

    #: status of the HTTP answer when the error reaches a client
    http_status: ClassVar[int] = 500
    #: field of the request that is at fault, when there is exactly one by nature of the error
    field: str | None = None

    def __init__(self, detail: str = "", /, **facts: Any) -> None:
        """`detail` is free text about this one case; `facts` are JSON values that log, answer and tests share."""
        self.detail = detail
        self.facts = facts
        if "field" in facts:
            self.field = str(facts["field"])
        super().__init__(str(self))

    @property
    def type(self) -> str:
        """The class name in snake case, which clients key on: `QueueFull` -> `queue_full`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def message(self) -> str:
        """First line of the class docstring."""
        return (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={value!r}" for name, value in self.facts.items())
        text = f"{self.message} {self.detail}".strip()
        return f"{text} ({facts})" if facts else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.detail, self.facts)


def _rebuild(cls: type[ComfyError], detail: str, facts: dict[str, Any]) -> ComfyError:
    return cls(detail, **facts)


class ConfigError(ComfyError):
    """A setting is wrong; the server does not start."""

    exit_status: ClassVar[int] = 2


class BadRequest(ComfyError):
    """The request is not understood."""

    http_status = 400


class InvalidJson(BadRequest):
    """The body of the request is not JSON."""


class BodyInvalid(BadRequest):
    """The body of the request is not what this route takes."""


class QueryInvalid(BadRequest):
    """A parameter of the address has a value that it cannot have."""


class HostNotAllowed(BadRequest):
    """The server does not answer to this Host name; --allowed-hosts (COMFY_ALLOWED_HOSTS) lists those that it does."""

    http_status = 403
    field = "Host"


class CrossSiteRefused(BadRequest):
    """The request comes from a page of another site; --enable-cors-header names the site that may send such requests."""

    http_status = 403


class BodyTooLarge(BadRequest):
    """The body of the request is over the limit."""

    http_status = 413


class PromptTooLarge(BodyTooLarge):
    """The prompt's JSON is over 32 MiB."""


class TargetGpuInvalid(BadRequest):
    """X-TARGET-GPU must be the index of a lane, or auto."""

    field = "X-TARGET-GPU"


class PromptIdInUse(BadRequest):
    """A job with this prompt_id is waiting, running or in the history."""

    field = "prompt_id"


class FileNameInvalid(BadRequest):
    """The file name cannot be used."""


class PathOutside(ComfyError):
    """The path leads out of the folder that it belongs to."""

    http_status = 403


class FileMissing(ComfyError):
    """The file does not exist."""

    http_status = 404


class NotAFile(ComfyError):
    """The path names a folder, where a file is expected."""

    http_status = 403


class FolderUnknown(ComfyError, KeyError):
    """There is no model folder of this name."""

    http_status = 404


class FileTaken(ComfyError):
    """A file of this name exists and is not to be replaced."""

    http_status = 409


class FileUnwritable(ComfyError):
    """The server cannot write the file."""

    http_status = 507


class ImageUnreadable(BadRequest):
    """The file cannot be read as an image."""


class UserUnknown(ComfyError):
    """There is no user of this id."""

    http_status = 401


class UserForbidden(UserUnknown):
    """There is no user of this id whose files could be shown."""

    http_status = 403


class SingleUser(BadRequest):
    """The server runs without --multi-user and keeps one user only."""


class UserNameUnusable(BadRequest):
    """The user name is missing, too long or already taken."""


class QueueFull(ComfyError):
    """The lane's queue is full."""

    http_status = 429


class NotReady(ComfyError):
    """The server is starting and takes no requests of this kind yet."""

    http_status = 503


class ShuttingDown(ComfyError):
    """The server is shutting down and takes no new prompts."""

    http_status = 503


class PromptInvalid(ComfyError):
    """The prompt cannot be executed.

    Carries the two objects of the HTTP answer as the reference words them (contract: execution.md section 3).
    """

    http_status = 400

    def __init__(self, error: dict[str, Any], node_errors: dict[str, Any] | None = None) -> None:
        self.error = error
        self.node_errors = node_errors or {}
        super().__init__(f"{error.get('type')}: {error.get('message')} {error.get('details')}".strip())

    def __reduce__(self) -> tuple[Any, ...]:
        return PromptInvalid, (self.error, self.node_errors)


class JobStateError(ComfyError):
    """A job was asked to make a step that its state does not allow."""


class LaneStateError(ComfyError):
    """A lane was asked to make a step that its state does not allow."""

    http_status = 409


class LaneUnknown(ComfyError):
    """There is no lane of this number."""

    http_status = 404


class DeviceFailed(ComfyError):
    """A GPU failed for good; the server ends and is to be started again. Waiting prompts are kept."""

    http_status = 503


class WeightFileInvalid(ComfyError):
    """The model file cannot be read as weights."""

    http_status = 422


class WeightFileMissing(WeightFileInvalid):
    """The model file does not exist."""

    http_status = 404


class ModelUnknown(WeightFileInvalid):
    """The model file's keys belong to no family that this server knows."""


class HostMemoryExhausted(ComfyError):
    """The weights do not fit in the RAM budget, even with every unleased slab dropped."""

    http_status = 503


class OutOfDeviceMemory(ComfyError):
    """The model and its activations do not fit on the lane's GPU."""

    http_status = 503


class OutsideLane(ComfyError):
    """This needs a lane's device, and the calling thread belongs to no lane."""


class NodeError(ComfyError):
    """A node cannot do what it was asked."""


class InputUnusable(NodeError):
    """An input of the node has a value that it cannot work with."""


class PackageMissing(NodeError):
    """An optional Python package is needed for this and is not installed."""


class Interrupted(BaseException):
    """The running job was asked to stop.

    A BaseException, so that `except Exception` in a custom node lets it pass. The ecosystem knows it as
    `comfy.model_management.InterruptProcessingException`.
    """
