"""The way from a text to its classification: lexer, grammar, walk, sqlglot, and what cannot be agreed on."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from classifier import grammar, lexer, meaning
from classifier.bodies import Bodies
from classifier.catalog import Catalog, CatalogSnapshot, settled_path
from classifier.effects import EFFECTS
from classifier.model import ANY_PATH, Action, ActionClass, Classification, Environment, Risk, Statement
from classifier.risk import assess, is_privileged
from classifier.utility import UTILITY
from classifier.walk import Handler, Knowledge, Surroundings, Walk, surroundings

HANDLERS: Final[dict[str, Handler]] = {**EFFECTS, **UTILITY}
MAX_NORMALIZED: Final = 64 * 1024  # characters; it is for people and for grouping
MAX_COLUMNS: Final = 1_000
_DEFAULT: Final = Environment()
# Statements whose class, relations and reasons cannot hang on a constant unless the walk says so.
_CONSTANT_FREE: Final = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})
_OPENS_ONLY: Final = frozenset({"TRANS_STMT_BEGIN", "TRANS_STMT_START", "TRANS_STMT_SAVEPOINT"})
_MOVES_NAMES: Final = frozenset({"search_path", "role", "session_authorization", "*"})
_DEFINING: Final = frozenset(
    {
        ActionClass.DDL,
        ActionClass.GRANT,
        ActionClass.ROLE,
        ActionClass.EXPORT,
        ActionClass.IMPORT,
        ActionClass.FILE,
        ActionClass.BULK_WRITE,
        ActionClass.UNKNOWN,
        ActionClass.CODE,
    }
)
_CHANGING: Final = _DEFINING | {ActionClass.WRITE}


def knowledge_of(snapshot: CatalogSnapshot) -> Knowledge:
    """What `classify` needs of a catalog. It remembers what it finds out, so one is made for a snapshot and kept."""
    return Bodies(Catalog(snapshot), HANDLERS)


def classify(
    sql: str | bytes, environment: Environment = _DEFAULT, knowledge: Knowledge | None = None
) -> Classification:
    """What a text sent to the server would do. Never raises for any text: what fails is `unknown`.

    `knowledge` is of the catalog that `environment.catalog_version` names; without it somebody's own functions are
    unknown, and triggers, rules, views and casts stay unseen.
    """
    try:
        return _classify(sql, environment, knowledge)
    except lexer.TooHostile as error:
        return unknown(str(error))
    except lexer.LexicalError as error:
        return rejected(str(error))
    except grammar.Rejected as error:
        return rejected(str(error))
    except grammar.Unparsable as error:
        return unknown(str(error))
    except Exception as error:
        # Whatever it is, the statement was not understood. The type alone: messages may quote the text.
        return unknown(f"the classifier failed on it ({type(error).__name__})")


def unknown(reason: str, kind: str = "Unknown") -> Classification:
    """The answer when nothing is certain; privileged."""
    action = Action(ActionClass.UNKNOWN, "not_understood", None, reason)
    statement = Statement(kind, "", (action,), reasons=(reason,), settings=("*",))
    return Classification(True, Risk.HIGH, "", "", (statement,))


def rejected(message: str) -> Classification:
    """The answer when PostgreSQL's grammar refuses the text; privileged until the server refuses it too."""
    return replace(unknown(message, "SyntaxError"), syntax_error=message)


def _classify(sql: str | bytes, environment: Environment, knowledge: Knowledge | None) -> Classification:
    try:
        text = sql.encode("utf-8") if isinstance(sql, str) else sql
        if not isinstance(sql, str):
            sql.decode("utf-8")
    except UnicodeError:
        return unknown("the text is not valid UTF-8")
    if not environment.standard_conforming_strings and b"\\" in text:
        return unknown("with standard_conforming_strings off, what a backslash means is not certain")
    scan = lexer.scan(text)
    parsed = grammar.parse(scan.blanked)
    if [(s.start, s.end) for s in scan.spans] != [(p.start, p.end) for p in parsed]:
        return unknown("lexer and grammar do not agree where statements begin and end")
    if environment.catalog_version and knowledge is None:
        return unknown("the catalog of the database is not at hand")
    if knowledge is not None:
        path = settled_path(environment.search_path, environment.role)
        environment = surroundings(environment, knowledge, search_path=path, run_path=path)
    if not parsed:
        return Classification(False, Risk.LOW, "", "", (), constant_free=False)

    statements: list[Statement] = []
    prepared: dict[str, Statement] = {}
    constant_free, moved = True, False
    for item in parsed:
        walk = Walk(HANDLERS, environment, prepared)
        walk.run(item.kind, item.tree)
        statement = walk.statement(item.kind)
        if _may_move_names(statements):
            statement = replace(statement, reaches=None)
        else:
            statement = replace(statement, search_path=_path(environment))
        statements.append(_with_sqlglot(statement, scan.blanked[item.start : item.end], environment))
        if item.kind not in _CONSTANT_FREE or walk.constants_matter:
            constant_free = False
        moved = moved or not _MOVES_NAMES.isdisjoint(walk.settings)
        if moved:
            environment = _behind(item, walk, environment)
        if walk.prepares is not None and walk.prepared is not None:
            prepared[walk.prepares] = walk.prepared
        if statement.deallocates == "":
            prepared.clear()
        elif statement.deallocates is not None:
            prepared.pop(statement.deallocates, None)

    fingerprint = grammar.fingerprint(scan.blanked)
    actions = [action for statement in statements for action in statement.actions]
    return Classification(
        privileged=is_privileged(actions),
        risk=_risk(actions),
        fingerprint=fingerprint,
        normalized=_shown(without_strings(grammar.normalize(scan.blanked) or scan.blanked)),
        statements=tuple(
            replace(s, prepared=replace(s.prepared, fingerprint=fingerprint)) if s.prepared is not None else s
            for s in statements
        ),
        constant_free=constant_free,
    )


def _behind(item: grammar.Parsed, walk: Walk, environment: Environment) -> Environment:
    """For the statements behind this one: the server looks their names up when it comes to them."""
    path: tuple[str, ...] | None = ANY_PATH  # set_config(), what calls it, and COMMIT, which may bring any back
    if item.kind in ("VariableSetStmt", "DiscardStmt"):
        path = settled_path(walk.new_path, environment.role)  # None for the session's own
    elif item.kind == "TransactionStmt":
        if item.tree.get("kind") in _OPENS_ONLY:
            return environment
    elif _MOVES_NAMES.isdisjoint(walk.settings):
        return environment
    if isinstance(environment, Surroundings):
        return replace(environment, search_path=path, run_path=path)
    return replace(environment, search_path=path)


def _with_sqlglot(statement: Statement, text: bytes, environment: Environment) -> Statement:
    """Adds what sqlglot reads in the deparse; only queries and changes of data are worth asking about."""
    if statement.kind not in _CONSTANT_FREE:
        return statement
    deparsed = grammar.deparse(text)
    reading = meaning.read(deparsed) if deparsed is not None else None
    if reading is None:
        reason = "relations are the grammar's alone: sqlglot does not read this statement"
        return replace(statement, reasons=(*statement.reasons, reason))
    classes = {action.cls for action in statement.actions}
    if (reading.defines and not classes & _DEFINING) or (reading.changes and not classes & _CHANGING):
        reason = "sqlglot sees an effect in it that PostgreSQL's grammar does not"
        action = Action(ActionClass.UNKNOWN, "parsers_disagree", None, reason)
        return replace(
            statement, actions=(*statement.actions, action), reasons=(*statement.reasons, reason), settings=("*",)
        )
    more = [name for name in reading.relations if name not in statement.relations]
    return replace(
        statement,
        relations=(*statement.relations, *more),
        relations_known=statement.relations_known and not more,
        columns_read=_columns(reading.reads, environment),
        columns_written=_columns(reading.writes, environment),
    )


def _path(environment: Environment) -> tuple[str, ...] | None:
    path = settled_path(environment.search_path, environment.role)
    return None if path is None or "$user" in path else path


def _may_move_names(before: list[Statement]) -> bool:
    """Whether a name in the next statement of a text may be another relation's than it was when the text was sent."""
    return any(
        not {"*", "search_path", "role"}.isdisjoint(s.settings) or any(a.cls is ActionClass.DDL for a in s.actions)
        for s in before
    )


def _columns(columns: tuple[meaning.Column, ...], environment: Environment) -> tuple[str, ...]:
    """Columns by name; with a catalog `*` is every column, and an unqualified name its relations'."""
    found: dict[str, None] = {}
    knowledge = environment.knowledge if isinstance(environment, Surroundings) else None
    for relations, name in columns:
        known = (
            {relation: knowledge.columns(relation, environment.search_path) for relation in relations}
            if (knowledge is not None)
            else {}
        )
        for relation in relations:
            names = known.get(relation)
            if names is None:
                if len(relations) == 1:
                    found[f"{relation}.{name}"] = None
            elif name == meaning.EVERY:
                found.update(dict.fromkeys(f"{relation}.{item}" for item in names))
            elif name in names:
                found[f"{relation}.{name}"] = None
        if len(relations) > 1 and not any(name in (names or ()) for names in known.values()):
            found[name] = None
    return tuple(found)[:MAX_COLUMNS]


def _risk(actions: list[Action]) -> Risk:
    """A function that runs with its owner's rights may do what the caller may not."""
    risk = assess(actions)
    if risk is Risk.LOW and any(action.verb == "security_definer" for action in actions):
        return Risk.MEDIUM
    return risk


def _shown(normalized: str) -> str:
    return normalized if len(normalized) <= MAX_NORMALIZED else f"{normalized[:MAX_NORMALIZED]} …"


def without_strings(normalized: bytes) -> str:
    """A normal form in which no string constant is left: libpg_query keeps those of most utility statements,
    and passwords, connection strings and user mappings are such strings."""
    try:
        strings = lexer.scan(normalized).strings
    except (lexer.TooHostile, lexer.LexicalError):
        return ""
    pieces = []
    copied = 0
    for start, end in strings:
        pieces.append(normalized[copied:start])
        pieces.append(b"$0")
        copied = end
    pieces.append(normalized[copied:])
    return b"".join(pieces).decode("utf-8", "replace").strip()
