"""Replication connections ("Streaming Replication Protocol").

The start-up itself is judged, as one unit like a statement: whoever may stream the server's log, or take a base backup,
has everything in it, of every database. What is approved is the connection; its replication commands pass under that
approval, each with its own entry in the trail. SQL, which a connection with `replication=database` takes as well, is
judged as everywhere.
"""

from __future__ import annotations

import re
from typing import Final

from classifier.model import Action, ActionClass, Classification, Risk, Statement
from pgproxy.policy import REPLICATION_START

COMMAND_KIND: Final = "ReplicationCommand"

# The first words that the walsender's own grammar knows; it compares them as they are, in upper case. All else is SQL
# to it. (Of SHOW both grammars say the same.)
_COMMANDS: Final = frozenset(
    {
        b"IDENTIFY_SYSTEM",
        b"READ_REPLICATION_SLOT",
        b"BASE_BACKUP",
        b"START_REPLICATION",
        b"CREATE_REPLICATION_SLOT",
        b"ALTER_REPLICATION_SLOT",
        b"DROP_REPLICATION_SLOT",
        b"TIMELINE_HISTORY",
        b"UPLOAD_MANIFEST",
        b"SHOW",
    }
)
# Where BASE_BACKUP sends its data by default; pg_basebackup says so each time.
_TARGET_CLIENT: Final = re.compile(rb"\bTARGET\s+'client'(?!')")
_SPACE: Final = b" \t\n\r\f\v"
_WORD: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_")


def start_up(value: str) -> tuple[bytes, Classification]:
    """What a start-up packet with `replication` asks for (`database`, or `true`), as a text and its classification."""
    text = f"START-UP WITH replication={value}"
    scope = "changes of its database, and the log of the whole server" if value == "database" else "the server's log"
    reason = (
        f"a replication connection streams {scope}, copies every database (BASE_BACKUP), and makes and drops "
        "replication slots; its replication commands need no further approval"
    )
    action = Action(ActionClass.REPLICATION, "start_replication_connection", None, reason)
    statement = Statement(REPLICATION_START, "START-UP", (action,), reasons=(reason,))
    fingerprint = f"replication-{value}"
    return text.encode(), Classification(True, Risk.CRITICAL, fingerprint, text, (statement,))


def command(sql: bytes) -> Classification | None:
    """The classification of a replication command; None when the server will take the text for SQL, or when more
    than one command stands in it."""
    text = sql.strip(_SPACE)
    end = 0
    while end < len(text) and text[end] in _WORD:
        end += 1
    word = text[:end]
    if word not in _COMMANDS or (end < len(text) and text[end] not in _SPACE + b";("):
        return None
    if b";" in text.rstrip(_SPACE + b";"):
        return None  # the walsender takes one command; whoever writes more means something else
    name = word.decode()
    reason = f"{name} is a command of the replication protocol"
    actions = [Action(ActionClass.REPLICATION, name.lower(), None, reason)]
    if word == b"BASE_BACKUP" and b"target" in _TARGET_CLIENT.sub(b"", text).lower():
        actions.append(Action(ActionClass.FILE, "base_backup_target", None, "the backup may go to files of the server"))
    if word == b"CREATE_REPLICATION_SLOT" and (b"/" in text or b"\\" in text):
        actions.append(Action(ActionClass.CODE, "load", None, "the output plugin may be any library on the server"))
    reasons = tuple(action.detail for action in actions)
    statement = Statement(COMMAND_KIND, name, tuple(actions), reasons=reasons)
    return Classification(True, Risk.CRITICAL, f"replication-{name.lower()}", name, (statement,))


def is_command(classification: Classification) -> bool:
    """Whether it is a replication command, and does nothing beyond what its connection's approval spoke of."""
    return bool(classification.statements) and all(
        s.kind == COMMAND_KIND and all(a.cls is ActionClass.REPLICATION for a in s.actions)
        for s in classification.statements
    )
