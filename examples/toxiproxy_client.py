"""Toxiproxy's own Python client makes faults here: `pip install toxiproxy-python`, and nothing in Go.

A client speaks to a small server through a proxy. The proxy is slowed down, silenced and taken down over
the API of `brownout fault serve`, and what the client suffers is printed.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

from toxiproxy import Toxiproxy

WAIT_SECONDS = 0.5


def main() -> None:
    """Play it all, and print a line for each fault."""
    command = [sys.executable, "-m", "brownout", "fault", "serve", "--listen", "127.0.0.1:0"]
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
    ):
        threading.Thread(target=answer_all, args=(listener,), daemon=True).start()
        try:
            assert server.stdout is not None
            line = server.stdout.readline()  # toxiproxy's API on 127.0.0.1:40123, proxies: 0, ...
            host, port = line.removeprefix("toxiproxy's API on ").partition(",")[0].split(":")
            play(host, int(port), "{}:{}".format(*listener.getsockname()))
        finally:
            server.terminate()


def play(host: str, port: int, upstream: str) -> None:
    """Faults, one after the other, as any program for toxiproxy makes them."""
    toxiproxy = Toxiproxy()
    toxiproxy.update_api_consumer(host, port)
    shop = toxiproxy.create(name="shop", upstream=upstream)

    print(f"no fault:          {seen(shop.listen)}")
    shop.add_toxic(type="latency", attributes={"latency": 200})
    print(f"latency 200 ms:    {seen(shop.listen)}")
    shop.destroy_toxic("latency_downstream")
    shop.add_toxic(type="timeout", stream="upstream", attributes={"timeout": 0})
    print(f"the request lost:  {seen(shop.listen)}")
    toxiproxy.reset()
    shop.add_toxic(type="reset_peer", attributes={"timeout": 0})
    print(f"the reply reset:   {seen(shop.listen)}")
    toxiproxy.reset()
    with shop.down():
        print(f"down:              {seen(shop.listen)}")
    print(f"no fault:          {seen(shop.listen)}")


def seen(address: str) -> str:
    """What a client sees of one call."""
    host, port = address.split(":")
    began = time.monotonic()
    try:
        with socket.create_connection((host, int(port)), timeout=WAIT_SECONDS) as connection:
            connection.sendall(b"price of tea?\n")
            answer = connection.recv(100).decode().strip() or "nothing, and the end"
    except OSError as error:
        answer = type(error).__name__
    return f"{answer} after {time.monotonic() - began:.1f} s"


def answer_all(listener: socket.socket) -> None:
    """A shop of one line."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # it is over
            return
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    """One call."""
    try:
        with connection:
            if connection.recv(100):
                connection.sendall(b"42\n")
    except OSError:
        pass


if __name__ == "__main__":
    main()
