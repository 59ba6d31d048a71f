"""PostgreSQL's own regression suite as oracle: `python -m tests.conformance.regress [--embedded] [--keep]`.

Every distinct text the server saw is classified offline (no catalog). A *miss* is a text that the server logs as
DDL, or that pgaudit calls ROLE or DDL at its own level, and that is classified unprivileged. What happens only
inside a function or trigger is listed apart: no parser sees it, the catalog is for that. A *false stop* is a text
that pgaudit calls READ or WRITE and nothing else, and that is stopped for a reason not named in `EXCUSED`.

`--embedded` runs the same scripts on the embedded PostgreSQL 18, which has no pgaudit: `log_statement` alone is the
oracle there, and what the scripts do with functions written in C fails.

Exit status 0 when there is no miss and at most `MAX_FALSE_STOPS` of the plain reads and writes are stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from classifier import Classification, classify
from classifier.data import builtins
from tests.conformance.oracle import Oracle, Seen, embedded_copy, logged, observed

MAX_FALSE_STOPS = 0.005
_STACK = 512 * 1024 * 1024
_PRIVILEGED = {"DDL", "ROLE"}
# Stops of a plain read or write that are meant: class or verb, and why.
EXCUSED = {
    "truncate": "TRUNCATE",
    "update_all": "UPDATE without a restricting WHERE",
    "delete_all": "DELETE without a restricting WHERE",
    "merge_all": "MERGE that may change every row",
    "copy_to_stdout": "COPY … TO",
    "copy_to_file": "COPY … TO",
    "copy_to_program": "COPY … TO",
    "copy_from_file": "COPY … FROM a file of the server",
    "copy_from_program": "COPY … FROM a program of the server",
    "unknown_function": "user-defined function (no catalog)",
    "unknown_operator": "user-defined operator (no catalog)",
    "write_system_catalog": "writes to a system catalog",
    "create_table_as": "EXPLAIN of a definition",
    "temp_create_table_as": "EXPLAIN of a definition",
    "create_materialized_view": "EXPLAIN of a definition",
    "select_into": "EXPLAIN of a definition",
}
_DANGEROUS = "dangerous builtin"
_TYPES = frozenset(builtins.TYPES.split())


@dataclass(frozen=True)
class Verdict:
    """What is needed of a classification, small enough to travel between processes."""

    privileged: bool
    classes: tuple[str, ...]
    verbs: tuple[str, ...]  # of privileged actions
    reasons: tuple[str, ...]
    rejected: bool
    kinds: tuple[str, ...]


@dataclass
class Report:
    """The table and its lists."""

    rows: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    misses: list[tuple[str, str, Verdict]] = field(default_factory=list)
    inside: list[tuple[str, str]] = field(default_factory=list)
    stops: list[tuple[str, str]] = field(default_factory=list)
    excused: Counter[str] = field(default_factory=Counter)
    rejected: list[str] = field(default_factory=list)
    plain: int = 0


def verdict(text: str) -> Verdict:
    found: Classification = classify(text)
    actions = [
        a for s in found.statements for a in s.actions if a.cls not in ("read", "write", "import", "transaction")
    ]
    return Verdict(
        found.privileged,
        found.classes,
        tuple(dict.fromkeys(a.verb for a in actions)),
        found.reasons,
        found.syntax_error is not None,
        tuple(s.kind for s in found.statements),
    )


def _many(texts: list[str]) -> list[Verdict]:
    answers: list[Verdict] = []
    threading.stack_size(_STACK)
    sys.setrecursionlimit(100_000)
    thread = threading.Thread(target=lambda: answers.extend(map(verdict, texts)))
    thread.start()
    thread.join()
    return answers


def verdicts(texts: Iterable[str]) -> dict[str, Verdict]:
    """Classifies in processes with a big stack, as the proxy's analysers do."""
    wanted = sorted(texts)
    chunks = [wanted[i : i + 2000] for i in range(0, len(wanted), 2000)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        return {
            t: v
            for chunk, answers in zip(chunks, pool.map(_many, chunks), strict=True)
            for t, v in zip(chunk, answers, strict=True)
        }


def oracle_class(text: str, seen: Seen, ddl: set[str], mod: set[str]) -> str:
    """The strictest thing the server and pgaudit say a text did itself."""
    own = {c for c, _ in seen.own}
    for name in ("ROLE", "DDL"):
        if name in own:
            return name
    if text in ddl:
        return "DDL"
    for name in ("FUNCTION", "WRITE", "READ", "MISC"):
        if name in own or any(c.startswith(name) for c in own):
            return name
    if text in mod:
        return "mod, not audited"
    return "failed" if seen.failed else "not audited"


def compare(seen: dict[str, Seen], ddl: set[str], mod: set[str], answers: dict[str, Verdict]) -> Report:
    """Server, pgaudit and classifier side by side."""
    report = Report()
    for text in sorted(seen.keys() | ddl | mod):
        facts = seen.get(text, Seen())
        answer = answers[text]
        oracle = oracle_class(text, facts, ddl, mod)
        row = report.rows[oracle]
        row["texts"] += 1
        row["privileged"] += answer.privileged
        if oracle in _PRIVILEGED and answer.kinds == ("FetchStmt",) and not answer.privileged:
            # its cursor's query calls the function; the DECLARE was the one to stop
            report.inside.append((", ".join(sorted(v for c, v in facts.own if c in _PRIVILEGED)), text))
        elif oracle in _PRIVILEGED and not answer.privileged:
            report.misses.append((oracle, text, answer))
            row["missed"] += 1
        elif _PRIVILEGED & {c for c, _ in facts.inside} and not answer.privileged:
            report.inside.append((", ".join(sorted(v for c, v in facts.inside if c in _PRIVILEGED)), text))
        if answer.rejected and not facts.failed and (facts.own or text in ddl | mod):
            report.rejected.append(text)
        if {c for c, _ in facts.own} and {c for c, _ in facts.own} <= {"READ", "WRITE"} and oracle in ("READ", "WRITE"):
            report.plain += 1
            if answer.privileged:
                excuse = _excuse(answer)
                if excuse is None:
                    report.stops.append((", ".join(answer.verbs), text))
                    row["false stops"] += 1
                else:
                    report.excused[excuse] += 1
    return report


def _unknown_functions(answer: Verdict) -> list[str]:
    """Names of functions it calls somebody's own: a builtin type among them is a cast, `regtype('int4')`."""
    mark = " is not PostgreSQL's own function"
    return [reason.split(mark)[0] for reason in answer.reasons if mark in reason]


def _excuse(answer: Verdict) -> str | None:
    excuses = set()
    if any(name in _TYPES for name in _unknown_functions(answer)):
        return None
    for verb in answer.verbs:
        if verb in EXCUSED:
            excuses.add(EXCUSED[verb])
        elif verb in DANGEROUS_VERBS:
            excuses.add(_DANGEROUS)
        else:
            return None
    return sorted(excuses)[0] if excuses else None


def dangerous_verbs() -> frozenset[str]:
    from classifier import functions

    effects = [*functions.EXACT.values(), *(effect for _, effect in functions._PREFIXES)]
    return frozenset(
        {e.verb for e in effects}
        | {
            "read_secret",
            "read_large_object",
            "read_server_file",
            "set_guard",
            "set_unreadable_encoding",
            "set_role",
            "set_config",
            "update_pg_settings",
            "write_role_catalog",
        }
    )


DANGEROUS_VERBS = dangerous_verbs()


def show(report: Report, limit: int) -> None:
    """The table, then every miss and false stop by reason."""
    print(f"{'oracle says':18} {'texts':>7} {'privileged':>10} {'missed':>7} {'false stops':>11}")
    for name, row in sorted(report.rows.items()):
        print(f"{name:18} {row['texts']:7} {row['privileged']:10} {row['missed']:7} {row['false stops']:11}")
    print(
        f"\nplain reads and writes: {report.plain}, false stops {len(report.stops)}"
        f" ({100 * len(report.stops) / max(1, report.plain):.2f} %)"
    )
    print("stops that are meant: " + ", ".join(f"{why} {n}" for why, n in report.excused.most_common()))
    print(f"valid on the server, rejected by PostgreSQL 18's grammar: {len(report.rejected)}")
    for title, rows in (
        ("misses", [(f"{o} {a.classes}", t) for o, t, a in report.misses]),
        ("DDL or ROLE only inside a function, trigger or rule (the catalog's)", report.inside),
        ("false stops", sorted(report.stops)),
        ("rejected by the grammar", [("", t) for t in report.rejected]),
    ):
        print(f"\n{title}: {len(rows)}")
        for why, text in rows[:limit]:
            print(f"  [{why}] {' '.join(text.split())[:160]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/pgproxy-conformance"))
    parser.add_argument("--embedded", action="store_true", help="on the embedded PostgreSQL 18, without pgaudit")
    parser.add_argument("--keep", action="store_true", help="compare the logs of an earlier run anew")
    parser.add_argument("--limit", type=int, default=40, help="lines shown of each list")
    arguments = parser.parse_args()
    oracle = Oracle(arguments.work)
    if arguments.embedded:
        oracle.prepare()
        oracle = Oracle(arguments.work, embedded_copy(arguments.work), oracle.port + 3, audited=False)
    logs = {level: arguments.work / f"{level}-{oracle.port}.csv" for level in ("ddl", "mod", "all")}
    if not (arguments.keep and all(log.exists() for log in logs.values())):
        oracle.prepare()
        oracle.start()
        try:
            for level in logs:
                oracle.run_suite(level, "all" if level == "all" else "none")
        finally:
            oracle.stop()
    seen, ddl, mod = observed(logs["all"]), logged(logs["ddl"]), logged(logs["mod"])
    report = compare(seen, ddl, mod - ddl, verdicts(seen.keys() | ddl | mod))
    show(report, arguments.limit)
    (arguments.work / "report.json").write_text(
        json.dumps(
            {
                "misses": [(o, t, a.reasons) for o, t, a in report.misses],
                "inside": report.inside,
                "stops": report.stops,
                "rejected": report.rejected,
            },
            indent=1,
        )
    )
    return 1 if report.misses or len(report.stops) > MAX_FALSE_STOPS * report.plain else 0


if __name__ == "__main__":
    sys.exit(main())
