"""The OpenAPI document, made from the endpoints and their models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError
from spectree import Response, SecurityScheme, SpecTree, Tag
from spectree.models import SecureType, SecuritySchemeData

from cdal.backend.errors import ActionError
from cdal.backend.reports.view import ErrorView
from cdal.version import VERSION

PROTOCOL = Tag(name="Label Studio", description="What Label Studio calls.")
API = Tag(name="API", description="What an admin can see and do.")
OPERATION = Tag(name="Operation", description="For those who run the backend.")

MAY_REFUSE = (400, 401, 403, 404, 409, 413, 503)

Endpoint = Callable[..., Any]


def describe(
    tag: Tag,
    answer: type[BaseModel],
    body: type[BaseModel] | None = None,
    also: Mapping[int, type[BaseModel]] = MappingProxyType({}),
) -> Callable[[Endpoint], Endpoint]:
    """Describe an endpoint that checks its own input.

    Args:
        tag: the section of the document.
        answer: the model of a successful answer.
        body: the model of the request's body.
        also: models of answers with further statuses.
    """
    return _with_name(json=body, resp=_answers(answer, also), tags=[tag], skip_validation=True)


def checked(tag: Tag, answer: type[BaseModel]) -> Callable[[Endpoint], Endpoint]:
    """Describe an endpoint, and check its arguments `query` and `json` against their types."""
    return _with_name(resp=_answers(answer), tags=[tag])


def _with_name(**options: Any) -> Callable[[Endpoint], Endpoint]:
    def decorate(function: Endpoint) -> Endpoint:
        named: Endpoint = document.validate(operation_id=function.__name__, **options)(function)
        return named

    return decorate


def _answers(
    answer: type[BaseModel], also: Mapping[int, type[BaseModel]] = MappingProxyType({})
) -> Response:
    views = {**dict.fromkeys(MAY_REFUSE, ErrorView), 200: answer, **also}
    return Response(**{f"HTTP_{status}": view for status, view in views.items()})


def _refuse(_request: Any, _answer: Any, fault: Exception | None, *_: Any) -> None:
    """Say in a sentence what in a query or a body does not fit its model."""
    if not isinstance(fault, ValidationError):
        return
    first = fault.errors(include_url=False, include_input=False)[0]
    name = ".".join(map(str, first["loc"]))
    said = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    raise ActionError(
        f'"{name[:40]}" is wrong: {said}.' if name else f"The body is wrong: {said}.", 400
    )


document = SpecTree(
    "flask",
    title="Label Studio CDAL",
    version=VERSION,
    description="Active learning for Label Studio by contextual diversity.",
    mode="strict",
    naming_strategy=lambda model: model.__name__,
    nested_naming_strategy=lambda _parent, child: child,
    before=_refuse,
    validation_error_status=400,
    validation_error_model=ErrorView,
    security_schemes=[
        SecurityScheme(name="basic", data=SecuritySchemeData(type=SecureType.HTTP, scheme="basic"))
    ],
    security={"basic": []},
)
