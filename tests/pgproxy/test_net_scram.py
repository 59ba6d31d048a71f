from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.net import scram
from pgproxy.net.scram import ClientExchange, ServerExchange, ServerNotTrusted
from pgproxy.protocol.violation import ProtocolViolation

# The example exchange of RFC 7677.
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
NONCE = b"rOprNGfwEbeRWgbNEkqO" + SERVER_NONCE.encode()
SERVER_FIRST = b"r=" + NONCE + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = b"c=biws,r=" + NONCE + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
VERIFIER = scram.derive("pencil", SALT)


def server() -> ServerExchange:
    return ServerExchange(VERIFIER, SERVER_NONCE)


def test_the_server_answers_as_the_rfc_says() -> None:
    exchange = server()
    assert exchange.first(CLIENT_FIRST) == SERVER_FIRST
    assert exchange.final(CLIENT_FINAL) == SERVER_FINAL


def run(client: ClientExchange, exchange: ServerExchange) -> bytes | None:
    client.salt_password(exchange.first(client.first()))
    return exchange.final(client.final())


@pytest.mark.parametrize(
    "password", ["pencil", "", "naïve", "päß, =word", "\u00aa", "I\u00adX", "\u0627\u0031", "\x07", "\ud800"]
)
def test_client_and_server_agree(password: str) -> None:
    client = ClientExchange(password)
    answer = run(client, ServerExchange(scram.derive(password, b"salt", 2)))
    assert answer is not None
    client.verify(answer)


def test_a_wrong_password_gets_no_answer() -> None:
    assert run(ClientExchange("pencils"), server()) is None


def test_nonces_are_fresh() -> None:
    assert ClientExchange("x").first() != ClientExchange("x").first()
    assert ServerExchange(VERIFIER).first(CLIENT_FIRST) != ServerExchange(VERIFIER).first(CLIENT_FIRST)


def test_a_replayed_proof_fails() -> None:
    client = ClientExchange("pencil")
    assert run(client, server()) is not None
    again = ServerExchange(VERIFIER)
    again.first(client.first())
    with pytest.raises(ProtocolViolation, match="nonce does not match"):
        again.final(client.final())


def test_a_client_that_could_bind_the_channel_is_welcome() -> None:
    """`y`: no -PLUS was offered, which is so; its header comes back in client-final-message."""
    exchange = server()
    exchange.first(b"y" + CLIENT_FIRST[1:])
    with pytest.raises(ProtocolViolation, match="channel-binding"):
        exchange.final(CLIENT_FINAL)
    exchange = server()
    exchange.first(b"y" + CLIENT_FIRST[1:])
    assert exchange.final(CLIENT_FINAL.replace(b"c=biws", b"c=eSws")) is None, "another text, another proof"


@pytest.mark.parametrize(
    ("message", "sqlstate"),
    [
        (b"", "08P01"),
        (b"n", "08P01"),
        (b"n,", "08P01"),
        (b"n,,", "08P01"),
        (b"p=tls-server-end-point,,n=,r=abc", "08P01"),
        (b"x,,n=,r=abc", "08P01"),
        (b"n,a=admin,n=,r=abc", "0A000"),
        (b"n,,m=ext,n=,r=abc", "0A000"),
        (b"n,,r=abc", "08P01"),
        (b"n,,n=user", "08P01"),
        (b"n,,n=user,r=", "08P01"),
        (b"n,,n=user,r=a b", "08P01"),
        (b"n,,n=user,r=a\0b", "08P01"),
        (b"n,,n=user,x=1,r=abc", "08P01"),
    ],
)
def test_malformed_client_first(message: bytes, sqlstate: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        server().first(message)
    assert caught.value.sqlstate == sqlstate


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"c=biws",
        b"c=biws,r=" + NONCE,
        b"c=biws,p=AAAA",
        b"r=" + NONCE + b",c=biws,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        CLIENT_FINAL.replace(b"biws", b"eSws"),
        CLIENT_FINAL.replace(b"biws", b""),
        CLIENT_FINAL.replace(b"rOpr", b"rOps"),
        CLIENT_FINAL + b",x=1",
        CLIENT_FINAL + b"\0",
        CLIENT_FINAL[:-8],
        CLIENT_FINAL[:-4] + b"****",
    ],
)
def test_malformed_client_final(message: bytes) -> None:
    exchange = server()
    exchange.first(CLIENT_FIRST)
    with pytest.raises(ProtocolViolation) as caught:
        exchange.final(message)
    assert caught.value.sqlstate == "08P01"


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_only_protocol_violation_escapes_the_server(first: bytes, final: bytes) -> None:
    for message in (first, b"n,,n=,r=" + first):
        exchange = server()
        try:
            exchange.first(message)
            assert exchange.final(final) is None
        except ProtocolViolation:
            pass


def server_first(client: ClientExchange, tail: bytes = b"more,s=c2FsdA==,i=1") -> bytes:
    return b"r=" + client.first().rpartition(b"r=")[2] + tail


@pytest.mark.parametrize(
    "tail",
    [
        b",s=c2FsdA==,i=1",  # the server's part of the nonce is missing: it could replay an old exchange
        b"more,s=c2FsdA==",
        b"more,s=,i=1",
        b"more,s=***,i=1",
        b"more,s=c2FsdA==,i=",
        b"more,s=c2FsdA==,i=0",
        b"more,s=c2FsdA==,i=-5",
        b"more,s=c2FsdA==,i=4000000000",
        b"more,i=1,s=c2FsdA==",
    ],
)
def test_a_server_that_cannot_be_right_gets_no_proof(tail: bytes) -> None:
    client = ClientExchange("pencil")
    with pytest.raises(ServerNotTrusted):
        client.salt_password(server_first(client, tail))
    assert not client.is_answered


def test_a_server_with_another_nonce_gets_no_proof() -> None:
    with pytest.raises(ServerNotTrusted):
        ClientExchange("pencil").salt_password(SERVER_FIRST)


@pytest.mark.parametrize("answer", [b"", b"v=", SERVER_FINAL, b"e=invalid-proof", b"v=\xff"])
def test_a_server_that_does_not_know_the_password_is_not_trusted(answer: bytes) -> None:
    client = ClientExchange("pencil")
    client.salt_password(server_first(client))
    client.final()
    with pytest.raises(ServerNotTrusted):
        client.verify(answer)


def test_verifiers_are_read_as_written() -> None:
    text = scram.format_verifier(VERIFIER)
    assert text.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    assert scram.parse_verifier(text) == VERIFIER
    assert "W22Z" not in repr(VERIFIER)


GOOD = scram.format_verifier(VERIFIER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "SCRAM-SHA-256$",
        GOOD[:-4],
        GOOD + "=",
        GOOD.replace("4096", "0"),
        GOOD.replace("4096", "many"),
        GOOD.replace("$4096", "4096"),
        GOOD.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
        GOOD.replace("SHA-256", "SHA-1"),
    ],
)
def test_malformed_verifier(text: str) -> None:
    with pytest.raises(ValueError, match=r"^malformed SCRAM-SHA-256 verifier$"):
        scram.parse_verifier(text)


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("I\u00adX", b"IX"),  # RFC 4013's examples
        ("user", b"user"),
        ("\u00aa", b"a"),
        ("\u2168", b"IX"),
        ("a\u00a0b", b"a b"),
        ("\u0007", b"\x07"),  # forbidden, and taken as it is
        ("\u0627\u0031", "\u0627\u0031".encode()),
        ("\u00ad", "\u00ad".encode()),  # nothing would be left
        ("", b""),
    ],
)
def test_passwords_are_prepared_as_the_server_does(password: str, prepared: bytes) -> None:
    assert scram.prepare_password(password) == prepared


# channel binding

BINDING = b"hash of the certificate"


@pytest.mark.parametrize("binding", [BINDING, b"\x00,=\xff"])
def test_both_sides_bind_the_channel(binding: bytes) -> None:
    client = ClientExchange("pencil", binding=binding)
    exchange = ServerExchange(VERIFIER, binding=binding)
    client.salt_password(exchange.first(client.first(), scram.MECHANISM_PLUS))
    answer = exchange.final(client.final())
    assert answer is not None
    client.verify(answer)


def test_the_proof_of_another_channel_is_refused() -> None:
    client = ClientExchange("pencil", binding=b"the certificate of somebody between")
    exchange = ServerExchange(VERIFIER, binding=BINDING)
    client.salt_password(exchange.first(client.first(), scram.MECHANISM_PLUS))
    with pytest.raises(ProtocolViolation, match="SCRAM channel binding check failed") as caught:
        exchange.final(client.final())
    assert caught.value.sqlstate == "28000"


def test_a_client_that_did_not_see_the_offer_is_refused() -> None:
    """Somebody between took -PLUS out of the list: the client says it could have, the server that it was offered."""
    client = ClientExchange("pencil", could_bind=True)
    assert client.first().startswith(b"y,,")
    with pytest.raises(ProtocolViolation, match="negotiation error"):
        ServerExchange(VERIFIER, binding=BINDING).first(client.first())


def test_a_client_that_cannot_bind_is_welcome_where_it_was_offered() -> None:
    client = ClientExchange("pencil")
    assert run(client, ServerExchange(VERIFIER, binding=BINDING)) is not None


@pytest.mark.parametrize(
    ("mechanism", "first"),
    [
        (scram.MECHANISM_PLUS, b"n,,n=,r=abc"),
        (scram.MECHANISM_PLUS, b"y,,n=,r=abc"),
        (scram.MECHANISM_PLUS, b"p=tls-unique,,n=,r=abc"),
        (scram.MECHANISM_PLUS, b"p=,,n=,r=abc"),
        (scram.MECHANISM_PLUS, b"p,,n=,r=abc"),
        (scram.MECHANISM, b"p=tls-server-end-point,,n=,r=abc"),
    ],
)
def test_mechanism_and_flag_must_agree(mechanism: bytes, first: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        ServerExchange(VERIFIER, binding=BINDING).first(first, mechanism)
    assert caught.value.sqlstate == "08P01"
