"""Uploads of any size, taken in pieces as they come: memory stays small, and the engine lets a client
send no faster than its pieces are received here. Answers with size and checksum.

    curl -T FILE localhost:8080/
"""

import hashlib
import json


async def app(scope, receive, send):
    assert scope["type"] == "http"
    size, checksum = 0, hashlib.sha256()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return  # the client has left in the middle: nobody is there to answer
        size += len(message["body"])
        checksum.update(message["body"])
        more = message["more_body"]
    answer = json.dumps({"bytes": size, "sha256": checksum.hexdigest()})
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer.encode() + b"\n"})
