"""The HTTP API of the public contract, over the approvals and over ports that the rest of the program fills.

Owns routes, authentication, roles, the stream of events and the server that runs them. Decides nothing: who
may decide is `approvals.decisions`, what a status may become is `approvals.model`.

Invariants:

1. Nothing under `/v1` is reached without a known token; the check precedes even the reading of the body.
2. Hostile text (NUL, lone surrogates, deep nesting) in a request or in what an agent stored is a 4xx or is
shown escaped in JSON; it is never a 500. 3. Errors are `{"detail": …}` and hold neither SQL nor the input.
"""

from approvals.api.application import Services, create_app
from approvals.api.server import RunningServer, serve

__all__ = ["RunningServer", "Services", "create_app", "serve"]
