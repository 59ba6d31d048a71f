"""Where a reader must agree with the server's own: asked of a real one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from pgproxy.embedded import EmbeddedServer
from pgproxy.protocol import backend, frontend, tags
from pgproxy.protocol.framing import BACKEND_TYPES, Framer
from pgproxy.protocol.startup import join_options, parse_options, split_options, startup_message
from pgproxy.protocol.violation import OptionRejected


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path_factory.mktemp("agreement"), password="unused", settings={"fsync": "off"})
    asyncio.run(server.start())
    hba = server.data_dir / "pg_hba.conf"
    hba.write_text("local all all trust\n")
    asyncio.run(server.stop())
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


class Connection:
    """A blocking client that speaks in whole messages."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(f"{server.socket_dir}/.s.PGSQL.{server.port}")
        self._framer = Framer(b"", 1 << 20, BACKEND_TYPES)

    def ask(self, data: bytes) -> list[tuple[int, bytes]]:
        """Everything up to ReadyForQuery, or to a fatal error."""
        self._socket.sendall(data)
        answer: list[tuple[int, bytes]] = []
        while not answer or answer[-1][0] != tags.READY_FOR_QUERY:
            chunk = self._socket.recv(65536)
            if not chunk:
                break
            answer += [(tag, message) for tag, message, _ in self._framer.feed(chunk)]
        return answer

    def show(self, setting: str) -> str:
        for tag, message in self.ask(frontend.query(f"show {setting}".encode())):
            if tag == tags.DATA_ROW:
                return message[11:].decode()
            if tag == tags.ERROR_RESPONSE:
                return backend.read_error(message)["C"]
        raise AssertionError("no answer")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()


def start(options: bytes, **more: bytes) -> bytes:
    extra = [(name.encode(), value) for name, value in more.items()]
    user = [(b"user", b"postgres"), (b"database", b"postgres")]
    return startup_message([*user, (b"options", options), *extra])


def error_of(answer: list[tuple[int, bytes]]) -> dict[str, str]:
    return next((backend.read_error(m) for tag, m in answer if tag == tags.ERROR_RESPONSE), {})


@pytest.mark.parametrize(
    "options",
    [
        rb"-c my.a=1",
        rb"-cmy.a=1",
        rb"--my.a=1",
        b" \t-c\n my.a=1\v\f\r ",
        rb"-c my.a=two\ words\\and\'quote",
        rb"-c my.a='x' --my.a=y=z",
        rb"-c my-a=1 --geqo-seed=0.5",
        rb"-c geqo-seed=0.25",
        b"-c my.a=\xc3\\\xa9",
        b"-c my.a=caf\xc3\xa9\xc2\xa0x",
        rb"\-c my.a=1",
        b"-c my.a=x\\",
        b"-c my.a=",
    ],
)
def test_settings_in_options_are_the_servers(server: EmbeddedServer, options: bytes) -> None:
    """What we read is what the server sets, and what we build from it sets the same."""
    try:
        settings = dict(parse_options(split_options(options)))
    except OptionRejected:
        settings = {}
    for packet in (start(options), start(join_options(list(settings.items())))):
        with Connection(server) as connection:
            fields = error_of(connection.ask(packet))
            if "my_a" in settings:
                assert fields["M"] == 'unrecognized configuration parameter "my_a"'
                continue
            assert fields == {}
            for name, value in settings.items():
                assert connection.show(name) == value


@pytest.mark.parametrize("options", [b"-c", b"-c my.a", b"--my.a", b"stray", b"\\", b"-c a.b=c stray", b"-"])
def test_what_the_server_rejects_is_rejected(server: EmbeddedServer, options: bytes) -> None:
    with pytest.raises(OptionRejected):
        parse_options(split_options(options))
    with Connection(server) as connection:
        assert error_of(connection.ask(start(options)))["C"] in {"42601", "42602", "42704"}


@pytest.mark.parametrize("options", [b"-Ecwork_mem=65kB", b"-ec work_mem=65kB"])
def test_a_word_of_several_switches_is_rejected_though_the_server_takes_it(
    server: EmbeddedServer, options: bytes
) -> None:
    """The attack behind the rule: a setting hidden behind a harmless switch in one word."""
    with Connection(server) as connection:
        assert error_of(connection.ask(start(options))) == {}
        assert connection.show("work_mem") == "65kB"
    with pytest.raises(OptionRejected):
        parse_options(split_options(options))


def test_names_are_cut_at_63_bytes_inside_a_character_too(server: EmbeddedServer) -> None:
    name, same, shorter = (text.encode() for text in ("é" * 40, "é" * 31 + "ê", "é" * 31))
    assert frontend.truncate_name(name) == frontend.truncate_name(same)
    assert frontend.truncate_name(name) != frontend.truncate_name(shorter)
    with Connection(server) as connection:
        connection.ask(start(b"", client_encoding=b"UTF8"))
        assert error_of(connection.ask(frontend.parse(name, b"select 1") + frontend.SYNC)) == {}
        taken = connection.ask(frontend.parse(same, b"select 2") + frontend.SYNC)
        assert error_of(taken)["C"] == "42P05"
        assert error_of(connection.ask(frontend.parse(shorter, b"select 2") + frontend.SYNC)) == {}


def test_the_server_reads_counts_unsigned(server: EmbeddedServer) -> None:
    """65,535 parameters, which a signed Int16 would call -1."""
    sql = b"select 1 where '1' in (%s)" % b",".join(b"$%d" % number for number in range(1, 65_536))
    body = b"\0\0\0\0\xff\xff" + b"\0\0\0\x011" * 65_535 + b"\0\0"
    bind = b"B" + (len(body) + 4).to_bytes(4, "big") + body
    assert len(frontend.read_bind(bind).parameters) == 65_535
    with Connection(server) as connection:
        connection.ask(start(b""))
        answer = connection.ask(frontend.parse(b"", sql) + bind + frontend.execute(b"") + frontend.SYNC)
        assert [tag for tag, _ in answer] == [
            tags.PARSE_COMPLETE,
            tags.BIND_COMPLETE,
            tags.DATA_ROW,
            tags.COMMAND_COMPLETE,
            tags.READY_FOR_QUERY,
        ]


def test_the_greeting_reads_and_builds_as_the_servers(server: EmbeddedServer) -> None:
    with Connection(server) as connection:
        packet = startup_message([(b"user", b"postgres"), (b"_pq_.unheard_of", b"1")], minor=9)
        answer = connection.ask(packet)
    first = answer[0]
    assert first[0] == tags.NEGOTIATE_PROTOCOL_VERSION
    newest, unrecognized = backend.read_negotiate_protocol_version(first[1])
    assert unrecognized == [b"_pq_.unheard_of"]
    assert backend.negotiate_protocol_version(newest, unrecognized) == first[1]
    for tag, message in answer[1:]:
        if tag == tags.AUTHENTICATION:
            assert backend.authentication(*backend.read_authentication(message)) == message
        elif tag == tags.PARAMETER_STATUS:
            assert backend.parameter_status(*backend.read_parameter_status(message)) == message
        elif tag == tags.BACKEND_KEY_DATA:
            pid, secret = backend.read_backend_key_data(message)
            assert len(secret) == 32, "protocol 3.2's long key"
            assert backend.backend_key_data(pid, secret) == message
        else:
            assert message == backend.ready_for_query(tags.IDLE)
