"""An API that speaks JSON: a store of documents. What is shown is methods, paths, fields, bodies and
status codes without a framework.

    PUT    /documents/{id}    stores the body, which is application/json
    GET    /documents/{id}    sends it
    DELETE /documents/{id}    forgets it
    GET    /documents         sends the ids: {"ids": ["a", "b"]}
"""

import json

# Of this worker. With more than one, documents belong into a database.
documents = {}


async def app(scope, receive, send):
    assert scope["type"] == "http"
    path, method = scope["path"], scope["method"]
    if path == "/documents":
        if method == "GET":
            return await answer(send, 200, {"ids": list(documents)})
        return await refuse(send, "GET")
    if not path.startswith("/documents/"):
        return await answer(send, 404, {"error": "there are documents only"})
    name = path.removeprefix("/documents/")
    if method == "PUT":
        return await put(name, scope, receive, send)
    if method not in ("GET", "DELETE"):
        return await refuse(send, "GET, PUT, DELETE")
    if name not in documents:
        return await answer(send, 404, {"error": "there is no such document"})
    if method == "GET":
        return await answer(send, 200, documents[name])
    del documents[name]
    return await answer(send, 204)


async def put(name, scope, receive, send):
    kind = dict(scope["headers"]).get(b"content-type", b"")
    if kind.partition(b";")[0].strip().lower() != b"application/json":
        return await answer(send, 415, {"error": "a document is application/json"})
    body = await whole_body(receive)
    if body is None:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        return await answer(send, 400, {"error": f"this is no JSON: {error}"})
    status = 204 if name in documents else 201
    documents[name] = document
    return await answer(send, status)


async def whole_body(receive):
    """The request's body; None if the client leaves before its end.

    How long it may be is for the server to say: --limit-request-body.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return body


async def answer(send, status, value=None, headers=()):
    body = b"" if status == 204 or value is None else json.dumps(value).encode() + b"\n"
    if body:
        headers = [*headers, (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(send, allowed):
    """Answers a method that is not for this path."""
    headers = [(b"allow", allowed.encode())]
    await answer(send, 405, {"error": f"this path takes {allowed}"}, headers)
