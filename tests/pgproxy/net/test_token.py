"""Agents that log in with a token: asked for over TLS alone, and verified before anybody is let in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from approvals.identity.provider import Provider
from approvals.identity.tokens import Verifier
from pgproxy.app.identity import AgentTokens
from pgproxy.errors import InvalidAuthorization
from pgproxy.net.auth import AuthenticationFailed
from pgproxy.net.token import TokenAuthenticator, TokensUnverifiable
from pgproxy.protocol import backend, frontend, tags
from pgproxy.protocol.violation import ProtocolViolation
from tests.approvals.provider import FakeProvider, SigningKey


class Client:
    """What a client answers, and what it was sent."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)
        self.written = b""

    async def read_message(self) -> tuple[int, bytes]:
        message = self._messages.pop(0)
        return message[0], message

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None:
        return None


ASKED = backend.authentication(tags.AUTH_CLEARTEXT_PASSWORD)
LET_IN = ASKED + backend.authentication(tags.AUTH_OK)


@pytest.fixture
async def issuer() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(client_id="pgproxy-agents", user={"sub": "svc-etl"}).running() as issuer:
        yield issuer


@pytest.fixture
def tokens(issuer: FakeProvider) -> TokenAuthenticator:
    verifier = Verifier(Provider(issuer.issuer), "pgproxy-agents")
    return TokenAuthenticator({"bot": "svc-etl", "other": "svc-other"}, AgentTokens(verifier, "sub"))


async def test_a_good_token_lets_its_agent_in(issuer: FakeProvider, tokens: TokenAuthenticator) -> None:
    client = Client(frontend.password(issuer.token().encode()))
    await tokens.authenticate(client, "bot", encrypted=True)
    assert client.written == LET_IN
    assert ("bot" in tokens, "nobody" in tokens) == (True, False)


async def test_without_tls_nothing_is_asked_for(issuer: FakeProvider, tokens: TokenAuthenticator) -> None:
    client = Client(frontend.password(issuer.token().encode()))
    with pytest.raises(InvalidAuthorization, match="needs TLS") as caught:
        await tokens.authenticate(client, "bot", encrypted=False)
    assert (client.written, caught.value.sqlstate) == (b"", "28000")


async def test_tokens_that_let_nobody_in(issuer: FakeProvider, tokens: TokenAuthenticator) -> None:
    forged = issuer.sign(issuer.access_claims(), key=SigningKey.new("k1"))
    for token in (
        issuer.token(sub="svc-other"),
        issuer.token(sub="SVC-ETL"),
        issuer.token(aud="pgproxy"),
        issuer.token(exp=1),
        issuer.token(iss="https://evil.example"),
        forged,
        issuer.token().rsplit(".", 1)[0] + ".",
        "svc-etl",
        "",
        "x" * 20_000,
        "\u00e9",
    ):
        client = Client(frontend.password(token.encode()))
        with pytest.raises(AuthenticationFailed, match='password authentication failed for user "bot"'):
            await tokens.authenticate(client, "bot", encrypted=True)
        assert client.written == ASKED


async def test_another_claim_can_name_the_agent(issuer: FakeProvider) -> None:
    tokens = TokenAuthenticator(
        {"bot": "etl"}, AgentTokens(Verifier(Provider(issuer.issuer), "pgproxy-agents"), "agent")
    )
    await tokens.authenticate(Client(frontend.password(issuer.token(agent="etl").encode())), "bot", encrypted=True)
    for agent in (None, ["etl"], "", "etl2"):
        with pytest.raises(AuthenticationFailed):
            await tokens.authenticate(
                Client(frontend.password(issuer.token(agent=agent).encode())), "bot", encrypted=True
            )


async def test_an_issuer_that_is_away_lets_nobody_in(issuer: FakeProvider, tokens: TokenAuthenticator) -> None:
    issuer.is_down = True
    client = Client(frontend.password(issuer.token().encode()))
    with pytest.raises(TokensUnverifiable):
        await tokens.authenticate(client, "bot", encrypted=True)
    assert client.written == ASKED


async def test_messages_of_another_shape(tokens: TokenAuthenticator) -> None:
    whole = frontend.password(b"token")
    without_end = whole[:1] + (len(whole) - 2).to_bytes(4, "big") + whole[5:-1]
    for message in (frontend.query(b"select 1"), without_end, whole.replace(b"k", b"\x00")):
        with pytest.raises(ProtocolViolation):
            await tokens.authenticate(Client(message), "bot", encrypted=True)
