"""An ASGI application: / and /items/NUMBER answer 200, everything else 404."""


async def answer(scope, receive, send):
    if scope["type"] != "http":
        return
    path = scope["path"]
    found = path == "/" or path.startswith("/items/")
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
    await send({"type": "http.response.body", "body": b"a small page\n" if found else b"not here\n"})
