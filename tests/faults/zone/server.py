"""A counter that runs in a zone: lines "incr", "get", "much BYTES"; and the same counter by HTTP, by UDP."""

from __future__ import annotations

import http.server
import socket
import socketserver
import sys
import threading

COUNTER = 0
LOCK = threading.Lock()


def answer(line: str) -> bytes:
    global COUNTER  # noqa: PLW0603
    verb, _, rest = line.strip().partition(" ")
    if verb == "much":
        return b"x" * int(rest)
    with LOCK:
        COUNTER += verb == "incr"
        return b"%d\n" % COUNTER


class Lines(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while line := self.rfile.readline():
            self.wfile.write(answer(line.decode()))


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = answer(self.path.strip("/"))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its base names it so
        pass


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # resets are what is tested


def udp(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((host, port))
        while True:
            line, client = one.recvfrom(100)
            one.sendto(answer(line.decode()), client)


def main() -> None:
    host = sys.argv[1]
    for port, handler in ((7000, Lines), (7001, Web)):
        server = Server((host, port), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=udp, args=(host, 7002), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
