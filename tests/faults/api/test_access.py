"""Who may ask, and who may listen where: this machine alone, or who shows the token."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from brownout.cli import main
from tests.faults.api.speak import LIMIT, TARGET, Api, dial, echo, round_trip, served, target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "correct-horse-battery"
COMMAND = [sys.executable, "-m", "brownout", "fault", "serve"]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command, in this process; for what ends by itself."""

    def run(*arguments: str) -> Done:
        try:
            code = main(["fault", "serve", *arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return Done(code, *capsys.readouterr())

    return run


def asked(address: str, host: str) -> int:
    with closing(http.client.HTTPConnection(address, timeout=LIMIT)) as connection:
        connection.putrequest("GET", "/version", skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        return connection.getresponse().status


# ----------------------------------------------------------------------------------- without a token


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8474", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:8474"],
)
def test_this_machine_may_be_called_so(address: str, host: str) -> None:
    assert asked(address, host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "10.0.0.1",
        "0.0.0.0",
        "",
        "[::]:1",
    ],
)
def test_another_host_is_not_this_machine(address: str, host: str) -> None:
    assert asked(address, host) == 403


def test_another_host_in_a_whole_address_is_not_this_machine(api: Api) -> None:
    assert api.ask("GET", "http://evil.example/version").code == 403


@pytest.mark.parametrize("origin", ["http://localhost:8474", "https://evil.example", "null", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_page_may_not_ask(api: Api, origin: str, method: str) -> None:
    told = api.ask(method, "/proxies", Origin=origin)
    assert told.code == 403
    assert "access-control-allow-origin" not in told.headers


def test_a_browser_may_not_ask(api: Api) -> None:
    told = api.ask("GET", "/version", User_Agent="Mozilla/5.0 (X11; Linux x86_64)")
    assert told[:2] == (403, {"error": "User agent not allowed", "status": 403})
    assert api.ask("GET", "/version", User_Agent="curl/8 like Mozilla/5.0").code == 200


OPEN = ["0.0.0.0:0", "[::]:0", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "192.0.2.1:80"]


@pytest.mark.parametrize("listen", OPEN)
def test_a_proxy_listens_here_only(api: Api, listen: str) -> None:
    wanted = {"name": "q", "upstream": TARGET, "listen": listen}
    for path, body in (("/proxies", wanted), ("/populate", [wanted])):
        told = api.ask("POST", path, body)
        assert told.code == 403
        assert "--token" in told.body["error"]
    api.proxy()
    assert api.ask("PATCH", "/proxies/p", {"listen": listen}).code == 403
    assert list(api.get("/proxies")) == ["p"]
    assert api.get("/proxies/p")["enabled"] is True


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"])
def test_the_api_listens_here_only(run: Run, listen: str) -> None:
    done = run("--listen", listen)
    assert done.returncode == 2
    assert "only with a token" in done.stderr
    assert "Traceback" not in done.stderr


# -------------------------------------------------------------------------------------- with a token


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    with served("--listen", "0.0.0.0:0", BROWNOUT_FAULT_TOKEN=TOKEN) as (address, _):
        yield address.replace("0.0.0.0", "127.0.0.1")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \xff"},
    ],
)
def test_who_does_not_show_the_token_is_told_to(guarded: str, headers: dict[str, str]) -> None:
    told = Api(guarded).ask("GET", "/proxies", **headers)
    assert (told.code, told.headers["www-authenticate"]) == (401, "Bearer")
    assert TOKEN not in told.body["error"]


def test_the_token_opens_it_beyond_this_machine(guarded: str) -> None:
    api = Api(guarded, Authorization=f"Bearer {TOKEN}", Host="toxiproxy.test:8474")
    with target(echo) as upstream:
        listen = api.proxy(upstream, listen="0.0.0.0:0")
        assert listen.startswith("0.0.0.0:")
        with closing(dial(listen)) as connection:
            round_trip(connection)
    api.forget()


def test_even_with_a_token_no_host_means_this_machine(guarded: str) -> None:
    api = Api(guarded, Authorization=f"Bearer {TOKEN}")
    assert api.proxy(listen=":0").startswith("127.0.0.1:")
    api.forget()


@pytest.mark.parametrize("headers", [{"Origin": "null"}, {"User_Agent": "Mozilla/5.0"}])
def test_a_browser_may_not_ask_even_with_the_token(guarded: str, headers: dict[str, str]) -> None:
    api = Api(guarded, Authorization=f"Bearer {TOKEN}")
    assert api.ask("GET", "/version", **headers).code == 403


@pytest.mark.parametrize(
    "token", ["", "short", "with a space in the token", "ünïcödé-and-long-too"]
)
def test_a_token_can_not_be_guessed(run: Run, token: str) -> None:
    done = run("--token", token)
    assert done.returncode == 2
    assert "a token has 16 characters or more" in done.stderr


# --------------------------------------------------------------------------------------- the command


def test_help_tells_all(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    for option in ("--config FILE", "--listen HOST:PORT", "--token TOKEN", "--seed N"):
        assert option in done.stdout
    assert "127.0.0.1:8474" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_every_proxy(number: signal.Signals, upstream: str) -> None:
    with served() as (address, process):
        api = Api(address)
        listen = api.proxy(upstream)
        api.toxic("latency", attributes={"latency": 60_000})
        with closing(dial(listen)) as connection:
            connection.sendall(b"held")
            process.send_signal(number)
            assert process.wait(LIMIT) == 0
        with pytest.raises(ConnectionRefusedError):
            dial(listen)


def test_it_says_its_seed_and_takes_another_each_time() -> None:
    lines = set()
    for _ in range(2):
        with subprocess.Popen(
            [*COMMAND, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            lines.add(process.stdout.readline().partition("seed: ")[2])
            process.terminate()
    assert len(lines) == 2
    assert all(line.strip().isdigit() for line in lines)


def test_it_begins_with_the_proxies_of_a_file(tmp_path: Path, upstream: str) -> None:
    file = tmp_path / "toxiproxy.json"
    file.write_text(
        f'[{{"name": "a", "listen": "127.0.0.1:0", "upstream": "{upstream}", "enabled": true}},'
        f' {{"name": "b", "listen": "[::1]:0", "upstream": "{upstream}", "enabled": false}}]'
    )
    with served("--config", str(file)) as (address, _):
        proxies = Api(address).get("/proxies")
        assert {name: each["enabled"] for name, each in proxies.items()} == {"a": True, "b": False}
        with closing(dial(proxies["a"]["listen"])) as connection:
            round_trip(connection)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{", "bad request body: Expecting property name"),
        ('[{"name": "a"}]', "missing required field: upstream at proxy 1"),
        ('[{"name": "a", "upstream": "x:1", "listen": "0.0.0.0:1"}]', "only with a token"),
        ('[{"name": "a", "upstream": "x:1", "listen": "TAKEN"}]', "can't listen on 127.0.0.1:"),
    ],
)
def test_a_wrong_file_is_told_and_nothing_served(
    run: Run, tmp_path: Path, text: str, wrong: str
) -> None:
    file = tmp_path / "toxiproxy.json"
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        file.write_text(text.replace("TAKEN", "127.0.0.1:{}".format(*taken.getsockname()[1:])))
        done = run("--config", str(file), "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"brownout: {file}: ")
    assert wrong in done.stderr


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--config", "/nowhere/toxiproxy.json"], "/nowhere/toxiproxy.json: No such file"),
        (["--listen", "nonsense"], "'nonsense' is no address"),
        (["--seed", "x"], "invalid int value"),
    ],
)
def test_a_wrong_command_is_told(run: Run, arguments: list[str], wrong: Any) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert wrong in done.stderr


def test_a_taken_port_is_told(run: Run, address: str) -> None:
    done = run("--listen", address)
    assert done.returncode == 2
    assert f"can't listen on {address}" in done.stderr
