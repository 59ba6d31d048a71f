"""What the supervisor runs: one child process, which learns what it is on its channel."""

from __future__ import annotations

import sys

import uvloop

from pgproxy import log
from pgproxy.app.address import AddressError
from pgproxy.channel import ChannelError, join
from pgproxy.config import Settings


async def _main() -> None:
    channel, hello = await join()
    settings = Settings.from_wire(hello.settings)
    log.configure(channel.name.replace(" ", "-"), settings.log_level)
    # Imported late: each role brings only what it needs, and prometheus_client after its directory is known.
    if hello.role == "worker":
        from pgproxy.app import worker

        mock_key = bytes.fromhex(hello.extra["mock_key"])
        await worker.run(settings, channel, node=hello.node, instance=hello.instance, mock_key=mock_key)
    else:
        from pgproxy.app import control

        await control.run(settings, channel, node=hello.node)


if __name__ == "__main__":
    try:
        uvloop.run(_main())
    except ChannelError as error:
        sys.exit(f"pgproxy: {error}")
    except AddressError as error:
        sys.exit(f"pgproxy: {error}")
