"""A server and a client of HTTP whose connection is one of MPTCP: mptcp.py REQUESTS

Ends with an error that says so where the kernel has no MPTCP.
"""

import http.client
import http.server
import socket
import sys
import threading

IPPROTO_MPTCP = 262


def mptcp():
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError as error:
        sys.exit(f"this kernel has no MPTCP (CONFIG_MPTCP, net.mptcp.enabled): {error}")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"an answer\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = mptcp()
        self.server_bind()
        self.server_activate()


server = Server()
threading.Thread(target=server.serve_forever, daemon=True).start()
client = http.client.HTTPConnection("127.0.0.1", server.server_port)
client.sock = mptcp()
client.sock.connect(server.server_address)
for number in range(int(sys.argv[1])):
    client.request("GET", f"/items/{number}")
    assert client.getresponse().read() == b"an answer\n"
client.close()
