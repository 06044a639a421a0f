"""Reads the bodies of HTTP requests, up to a maximum size."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from fastapi import Request as HttpRequest
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from uno_jax.serving.refusals import ClientGone, Refusal
from uno_jax.serving.server import MAX_BODY, MAX_PICTURES


async def read_body(request: HttpRequest, kind: str) -> bytes:
    """Reads a body whose content type must be `kind`.

    Pages in a browser cannot send JSON to another server without its consent, which this one does not give.

    Raises:
      Refusal: the content type is another one, or the body is too large.
      ClientGone: the client has closed the connection.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != kind:
        raise Refusal(415, f"the content type is {given or 'missing'}: expected {kind}")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise Refusal(413, f"the request has more than the maximum of {MAX_BODY:,} bytes; send less")
    except ClientDisconnect:
        raise ClientGone from None
    return bytes(body)


async def read_form(request: HttpRequest, files: Sequence[str]) -> tuple[dict[str, str], list[bytes]]:
    """Reads a multipart form.

    Args:
      request: the request.
      files: names of the fields that are files.

    Returns:
      The texts by field, and the contents of the files in order.

    Raises:
      Refusal: the body is no such form, has a field twice, or a file or text in a wrong field.
      ClientGone: the client has closed the connection.
    """
    body = await read_body(request, "multipart/form-data")

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = MultiPartParser(request.headers, whole(), max_files=MAX_PICTURES + 1, max_part_size=MAX_BODY)
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        reason = getattr(error, "message", "its boundary is missing, or a text is not UTF-8")
        raise Refusal(400, f"the body is not a valid form ({str(reason).rstrip('.')}); send it again") from None
    texts: dict[str, str] = {}
    contents = []
    for name, value in form.multi_items():
        if name in files and isinstance(value, UploadFile):
            contents.append(await value.read())
        elif name in files or not isinstance(value, str):
            wanted = "expected a file" if name in files else "files belong into the field image"
            raise Refusal(400, f"{name} is {'a text' if isinstance(value, str) else 'a file'}: {wanted}")
        elif name in texts:
            raise Refusal(400, f"{name} is given twice; give it once")
        else:
            texts[name] = value
    return texts, contents
