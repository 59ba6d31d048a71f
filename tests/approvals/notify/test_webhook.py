"""Webhooks: signatures that a receiver of the specification accepts, retries, and addresses that are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from email.utils import formatdate

import pytest

from approvals.decisions import decide
from approvals.notify.http import Poster, is_public
from approvals.notify.ports import NotDelivered
from approvals.notify.webhook import Webhook, secret_bytes, sign
from tests.approvals.conftest import BOB, Store, request, reviewer
from tests.approvals.notify.conftest import all_done, dispatching, rows
from tests.approvals.notify.services import Call, Recording

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def webhook(url: str, *, allow_private: bool = True) -> Webhook:
    return Webhook("webhook:siem", url, SECRET, allow_private=allow_private)


def is_genuine(call: Call) -> bool:
    """As a receiver checks it, written from the specification."""
    signed = f"{call.headers['webhook-id']}.{call.headers['webhook-timestamp']}.".encode() + call.raw
    wanted = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    return f"v1,{wanted}" in call.headers["webhook-signature"].split(" ")


def test_signature_is_the_specifications_example() -> None:
    key = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAA"])
def test_secrets_that_are_none(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        secret_bytes(secret)


async def test_every_event_is_told_in_order_as_it_was(store: Store, receiver: Recording) -> None:
    async with dispatching(store, [webhook(receiver.url)]) as metrics:
        opened = await store.gateway.open(request(sql="SELECT '\0\ud800'"))
        await decide(store.pool, opened.id, reviewer(BOB), "deny", "no", sha256=None)
        await receiver.until(lambda: len(receiver.calls) >= 3)
        await all_done(store, "webhook:siem", 3)
    told = [(call.body["type"], call.body["data"]["status"]) for call in receiver.calls]
    assert told == [("approval.pending", "pending"), ("approval.vote", "pending"), ("approval.denied", "denied")]
    assert all(is_genuine(call) for call in receiver.calls)
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 3
    assert receiver.calls[0].body["data"]["statement"]["sql"] == "SELECT '\0\ud800'"
    assert metrics.counts == {("webhook", "delivered"): 3}


@pytest.mark.parametrize("status", [500, 503, 429, 404, 302])
async def test_failure_is_tried_again_under_the_same_id(store: Store, receiver: Recording, status: int) -> None:
    receiver.script = [(status, {"Location": "/elsewhere"}), (status, {})]
    async with dispatching(store, [webhook(f"{receiver.url}/hook")]) as metrics:
        await store.gateway.open(request())
        (row,) = await all_done(store, "webhook:siem", 1)
    assert row["attempts"] == 3
    assert [call.path for call in receiver.calls] == ["/hook"] * 3  # no redirect was followed
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1
    assert all(is_genuine(call) for call in receiver.calls)
    assert metrics.counts == {("webhook", "retried"): 2, ("webhook", "delivered"): 1}


async def test_gone_is_never_tried_again(store: Store, receiver: Recording) -> None:
    receiver.script = [(410, {})]
    async with dispatching(store, [webhook(receiver.url)]) as metrics:
        await store.gateway.open(request())
        (row,) = await all_done(store, "webhook:siem", 1)
    assert row["dead_at"] is not None
    assert metrics.counts == {("webhook", "dead"): 1}


@pytest.mark.parametrize("value", ["120", formatdate(4_000_000_000, usegmt=True)])
async def test_retry_after_is_kept(store: Store, receiver: Recording, value: str) -> None:
    receiver.script = [(429, {"Retry-After": value})]
    poster = Poster(allow_private=True)
    with pytest.raises(NotDelivered) as refused:
        await poster.send("POST", receiver.url, b"{}", {})
    await poster.close()
    assert refused.value.retry_after_s is not None
    assert 100 <= refused.value.retry_after_s <= 3600


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
async def test_private_addresses_are_refused(store: Store, receiver: Recording, host: str) -> None:
    port = receiver.url.rsplit(":", 1)[1]
    channel = webhook(f"http://{host}:{port}", allow_private=False)
    async with dispatching(store, [channel]):
        await store.gateway.open(request())
        row = None
        while not row or not row["last_error"]:
            (row,) = await rows(store, "webhook:siem") or [None]
    assert "private" in row["last_error"]
    assert receiver.calls == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


async def test_an_answer_without_end_is_cut(receiver: Recording) -> None:
    poster = Poster(allow_private=True)
    receiver.answer = lambda call: __import__("aiohttp").web.Response(body=b"x" * 2**22)  # type: ignore[method-assign]
    answer = await poster.send("POST", receiver.url, secrets.token_bytes(10), {})
    await poster.close()
    assert len(answer.body) == 64 * 1024
