"""An HTTPS server and clients of it in one process: N requests with urllib, N with http.client, N with asyncio."""

import asyncio
import http.client
import http.server
import ssl
import sys
import threading
import urllib.error
import urllib.request

key, cert, requests = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"answer " * 20
        self.send_response(404 if self.path.startswith("/missing") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def path(kind, number):
    return f"/{'missing' if number % 10 == 9 else kind}/{number}"


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
port = server.server_address[1]
trusting = ssl._create_unverified_context()
print("ready", flush=True)

for number in range(requests):
    try:
        urllib.request.urlopen(f"https://127.0.0.1:{port}{path('urllib', number)}", context=trusting).read()
    except urllib.error.HTTPError as error:
        error.read()

connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusting)
for number in range(requests):
    connection.request("GET", path("client", number))
    connection.getresponse().read()
connection.close()


async def streams():
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    for number in range(requests):
        writer.write(f"GET {path('asyncio', number)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        await reader.readexactly(int(length[0].split(b":")[1]))
    writer.close()


asyncio.run(streams())
