"""How bad a statement could be, for people to sort by. Deterministic: the same actions give the same level."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from classifier.model import UNPRIVILEGED, Action, ActionClass, Risk

_ORDER: Final = (Risk.LOW, Risk.MEDIUM, Risk.HIGH, Risk.CRITICAL)
_BY_CLASS: Final = {
    ActionClass.READ: Risk.LOW,
    ActionClass.TRANSACTION: Risk.LOW,
    ActionClass.WRITE: Risk.LOW,
    ActionClass.IMPORT: Risk.MEDIUM,
    ActionClass.DDL: Risk.MEDIUM,
    ActionClass.MAINTENANCE: Risk.MEDIUM,
    ActionClass.BULK_WRITE: Risk.HIGH,
    ActionClass.EXPORT: Risk.HIGH,
    ActionClass.GRANT: Risk.HIGH,
    ActionClass.SESSION: Risk.HIGH,
    ActionClass.REPLICATION: Risk.HIGH,
    ActionClass.CODE: Risk.HIGH,
    ActionClass.UNKNOWN: Risk.HIGH,
    ActionClass.ROLE: Risk.CRITICAL,
    ActionClass.FILE: Risk.CRITICAL,
}
_BY_VERB: Final = {
    "alter_system": Risk.CRITICAL,
    "control_server": Risk.HIGH,
    "signal_backend": Risk.HIGH,
    "drop": Risk.HIGH,
    "drop_owned": Risk.HIGH,
    "drop_database": Risk.CRITICAL,
    "drop_tablespace": Risk.HIGH,
    "disable_row_security": Risk.HIGH,
    "alter_policy": Risk.HIGH,
    "read_secret": Risk.CRITICAL,
    "write_system_catalog": Risk.CRITICAL,
    "comment": Risk.LOW,
}


def assess(actions: Iterable[Action]) -> Risk:
    """The highest level any action has."""
    return max((level(action) for action in actions), key=_ORDER.index, default=Risk.LOW)


def level(action: Action) -> Risk:
    """How bad one action could be."""
    if action.verb.startswith("temp_"):
        return Risk.LOW  # gone with the session
    return _BY_VERB.get(action.verb, _BY_CLASS[action.cls])


def decisive(actions: Iterable[Action]) -> tuple[str, ...]:
    """The sentences of the actions that made the level what it is; none where it is low."""
    held = tuple(actions)
    highest = assess(held)
    if highest is Risk.LOW:
        return ()
    chosen = (action for action in held if level(action) is highest)
    return tuple(dict.fromkeys(_sentence(action) for action in chosen))


def _sentence(action: Action) -> str:
    said = action.detail or action.verb.replace("_", " ")
    return f"{action.object}: {said}" if action.object else said


def is_privileged(actions: Iterable[Action]) -> bool:
    """Whether a human has to be asked when no policy says otherwise."""
    return any(action.cls not in UNPRIVILEGED for action in actions)
