"""Classifications for the fake server's few words: what the real classifier would say of their likes."""

from __future__ import annotations

from classifier.model import Action, ActionClass, Classification, Environment, Risk, Statement

_CLASSES = {
    "DROP": ActionClass.DDL,
    "COPY": ActionClass.EXPORT,
    "INSERT": ActionClass.WRITE,
    "BEGIN": ActionClass.TRANSACTION,
    "COMMIT": ActionClass.TRANSACTION,
    "ROLLBACK": ActionClass.TRANSACTION,
    "SAVEPOINT": ActionClass.TRANSACTION,
}


def _statement(text: str, prepared_here: dict[str, Classification], environment: Environment | None) -> Statement:
    word, _, rest = text.partition(" ")
    cls = _CLASSES.get(word, ActionClass.READ)
    if word == "COPY":
        if rest.endswith("FROM STDIN"):
            return Statement("CopyStmt", word, (Action(ActionClass.IMPORT, "copy_from_stdin", "t"),))
        return Statement("CopyStmt", word, (Action(cls, "copy_to_stdout", "t"),))
    actions = (Action(cls, word.lower()),)
    if word == "PREPARE":
        name, _, inner = rest.partition(" AS ")
        prepared = classify(inner, environment)
        prepared_here[name] = prepared
        all_actions = actions + tuple(a for s in prepared.statements for a in s.actions)
        return Statement("PrepareStmt", word, all_actions, prepares=name, prepared=prepared)
    if word == "EXECUTE":
        if rest in prepared_here:
            inner_actions = tuple(a for s in prepared_here[rest].statements for a in s.actions)
            return Statement("ExecuteStmt", word, actions + inner_actions)
        return Statement("ExecuteStmt", word, actions, executes=(rest,))
    if word == "DEALLOCATE":
        return Statement("DeallocateStmt", word, actions, deallocates="" if rest == "ALL" else rest)
    if word == "DISCARD":
        return Statement("DiscardStmt", word, actions, deallocates="", settings=("*",))
    if word == "DECLARE":
        return Statement("DeclareCursorStmt", word, actions, settings=("search_path",) if "set_config" in rest else ())
    if word == "SET":
        return Statement("VariableSetStmt", word, actions, settings=(rest.split()[0],))
    return Statement(word.title() + "Stmt", word, actions)


def classify(text: str, environment: Environment | None = None) -> Classification:
    texts = [t.strip() for t in text.split(";") if t.strip()]
    prepared_here: dict[str, Classification] = {}
    if any(t.startswith("SELCT") for t in texts):
        action = Action(ActionClass.UNKNOWN, "not_understood")
        statement = Statement("SyntaxError", "", (action,), settings=("*",))
        return Classification(True, Risk.HIGH, "", text, (statement,), syntax_error="syntax error")
    statements = tuple(_statement(t, prepared_here, environment) for t in texts)
    # What is shadowed in an unknown search_path counts as the worst.
    if environment is not None and environment.search_path != ("public",) and text.startswith("SELECT f"):
        statements = (Statement("SelectStmt", "SELECT", (Action(ActionClass.CODE, "call"),)),)
    privileged = any(
        a.cls in (ActionClass.DDL, ActionClass.EXPORT, ActionClass.CODE) for s in statements for a in s.actions
    )
    return Classification(privileged, Risk.HIGH if privileged else Risk.LOW, "fp", text, statements)


def is_privileged(text: str) -> bool:
    return classify(text).privileged
