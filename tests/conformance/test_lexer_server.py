"""The lexer against servers: as many statements, with the same values, as the lexer predicts, or it says unknown.

A string is generated from `SELECT n` and every kind of literal, comment, operator and gap, one in five with a byte
put in, taken out or doubled. The server runs it whole (simple protocol); then each statement the lexer found, and its
blanked text, run alone (extended protocol, which refuses two statements at once). All must give the same.

    python -m tests.conformance.test_lexer_server DSN [STRINGS] [SEED]

runs as many as asked for against any server; the suite itself a few thousand against PostgreSQL 18.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from time import monotonic
from typing import Final

import psycopg
from psycopg.pq import ExecStatus

from classifier import grammar, lexer
from pgproxy.embedded import EmbeddedServer

STRINGS: Final = 4_000
BATCH: Final = 100

# A vertical tab as white space, 0x1F and 1_000 came with PostgreSQL 16.
NEWER: Final = re.compile(r"\v|\b0[xob]|[0-9]_[0-9]", re.IGNORECASE)
SYNTAX: Final = "a syntax error"

# A result: its rows, or what failed.
Result = tuple[tuple[bytes | None, ...], ...] | str


class Generator:
    """Strings, the same for the same seed."""

    GAPS = (" ", "\n", "\t", "\r\n", "\f", "\r", "  ", "/**/", "/* ; */", "/*'*/", "/* /* ; */ */", "/*/**/*/")
    COMMENTS = ("-- ;\n", "--'\n", "--\r", '--"$$\n', "/*--*/", "/***/", "/*/;*/", "/*$$*/", "/* \n */")
    BITS = (";", "''", '"', "$", "$$", "$a$", "\\\\", "/*", "*/", "--", "\n", "x", "é", "\u00a0", " ", ")", "(", "E")
    TAGS = ("", "a", "_", "é", "a1", "é_9", "A", "ab", "\u00a0")
    NAMES = ("a", "_x", "é", "a$b", "a$$", "ab\u00a0c", '"a;b"', '"a""b"', '"--"', '"/*"', 'U&"d\\0061;"', "a$b$c")

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def string(self) -> str:
        """One string of one to six statements."""
        pick = self.random
        text = self.gap(0.2) + "".join(self.statement() + self.separator() for _ in range(pick.randint(1, 6)))
        if pick.random() < 0.2:
            at = pick.randrange(len(text) + 1)
            what = pick.random()
            if what < 0.4:
                text = text[:at] + pick.choice("'\"$;/*-\\\nE \v(") + text[at:]
            elif what < 0.7:
                text = text[:at] + text[at + 1 :]
            else:
                text = text[:at] + text[at : at + 3] * 2 + text[at + 3 :]
        return text

    def separator(self) -> str:
        return self.gap(0.3) + self.random.choice((";", ";", ";", ";;", "; ;")) + self.gap(0.5)

    def gap(self, chance: float) -> str:
        if self.random.random() >= chance:
            return ""
        gaps = self.GAPS if self.random.random() < 0.7 else self.COMMENTS
        gap = "".join(self.random.choice(gaps) for _ in range(self.random.randint(1, 2)))
        return gap + ("\v" if self.random.random() < 0.02 else "")

    def statement(self) -> str:
        pick = self.random
        text = pick.choice(("SELECT", "select", "Select")) + pick.choice((" ", "\n", "/**/", "\t")) + self.gap(0.2)
        text += str(pick.randrange(1000))
        for _ in range(pick.randint(0, 4)):
            text += self.gap(0.2) + "," + self.gap(0.2) + self.item()
            if pick.random() < 0.2:
                text += " as " + self.gap(0.2) + pick.choice(self.NAMES)
        return text

    def content(self, *more: str) -> str:
        bits = (*self.BITS, *more)
        return "".join(self.random.choice(bits) for _ in range(self.random.randint(0, 5)))

    def item(self) -> str:
        pick = self.random
        match pick.randrange(13):
            case 0:
                return "'" + self.content("\\") + "'"
            case 1:
                return pick.choice("eE") + "'" + self.content("\\'", "\\n", "\\;", "\\x41") + "'"
            case 2:
                escape = pick.random()
                text = pick.choice("uU") + "&'" + self.content("\\0061", "\\+000062").replace("\\\\", "") + "'"
                return text if escape < 0.6 else text.replace("\\", "!") + self.gap(0.5) + " UESCAPE '!'"
            case 3:
                return pick.choice("bB") + "'" + pick.choice(("", "0", "0101", "1'\n'0")) + "'"
            case 4:
                return pick.choice("xX") + "'" + pick.choice(("", "1F", "ab", "a'\n'b")) + "'"
            case 5:
                return pick.choice("nN") + "'" + self.content() + "'"
            case 6:
                tag = "$" + pick.choice(self.TAGS) + "$"
                inner = self.content("'", "$b$", "$" + pick.choice(self.TAGS)).replace(tag, "")
                return tag + inner.rstrip("$") + " " + tag
            case 7:
                gap = pick.choice(
                    ("\n", " \n ", "--;\n", " -- '\n\t", "\r", "\f\n--x\n\n", "\r\n", " /*;*/ \n", "\n /**/")
                )
                return "'" + self.content() + "'" + gap + "'" + self.content("\\") + "'"
            case 8:
                gap = pick.choice(("\n", " -- '\n", "\n--\n"))
                return "E'" + self.content("\\'") + "'" + gap + "'" + self.content("\\'", "\\;") + "'"
            case 9:
                operators = (
                    "+",
                    "-",
                    "*",
                    "/",
                    "- -",
                    "*-",
                    "+ +",
                    "/ -",
                    "<>",
                    "<=",
                    ">",
                    "||",
                    "%",
                    "/-",
                    "<-",
                    "->",
                )
                return f"{pick.randrange(99)}{pick.choice(operators)}{self.gap(0.5)}{pick.randrange(1, 99)}"
            case 10:
                return pick.choice(
                    ("0x1F", "1_000", "1.5e3", ".5", "1.", "1..2", "0b1", "1e", "$1", "$1a", "1a", "$1$$;$$")
                )
            case 11:
                return f"({self.item()}{self.gap(0.3)})"
            case _:
                return pick.choice(("array[1,2]", "'a'::text", "(array[7,8])[1]", "case when true then 1 end", "null"))


class Verdict(Counter[str]):
    """How often the two agreed, and how; `examples` of what is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.examples: list[str] = []

    def wrong(self, kind: str, text: str, detail: object = "") -> None:
        self[f"WRONG {kind}"] += 1
        if len(self.examples) < 20:
            self.examples.append(f"{kind}: {text!r} {detail}")


def whole(connection: psycopg.Connection, text: str) -> list[Result]:
    """What the server makes of the string."""
    pq = connection.pgconn
    pq.send_query(text.encode())
    results = []
    while (result := pq.get_result()) is not None:
        if result.status != ExecStatus.EMPTY_QUERY:
            results.append(read(result))
    return results


def alone(connection: psycopg.Connection, texts: list[bytes]) -> list[Result]:
    """What the server makes of each text by itself, many in flight."""
    pq = connection.pgconn
    pq.enter_pipeline_mode()
    for text in texts:
        pq.send_query_params(text, None)
        pq.pipeline_sync()
    results = []
    for _ in texts:
        result = pq.get_result()
        assert result is not None
        results.append(read(result))
        assert pq.get_result() is None
        sync = pq.get_result()
        assert sync is not None and sync.status == ExecStatus.PIPELINE_SYNC
    pq.exit_pipeline_mode()
    return results


def read(result: psycopg.pq.abc.PGresult) -> Result:
    if result.status == ExecStatus.TUPLES_OK:
        columns = range(result.nfields)
        return tuple(tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples))
    # beyond "no syntax" which error comes first depends on the protocol
    state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
    return SYNTAX if state == b"42601" else "an error at run time"


def predict(text: str) -> lexer.Scan | str:
    """The lexer's view where the grammar shares it, else why the answer is unknown."""
    try:
        scan = lexer.scan(text.encode())
    except lexer.LexicalError:
        return "unknown: lexical error"
    except lexer.TooHostile:
        return "unknown: limits"
    try:
        parsed = grammar.parse(scan.blanked)
    except grammar.Rejected:
        return "unknown: grammar rejects"
    if [(s.start, s.end) for s in scan.spans] != [(p.start, p.end) for p in parsed]:
        return "unknown: no agreement"
    return scan


def compare(connection: psycopg.Connection, texts: list[str], verdict: Verdict) -> None:
    """Judges some strings."""
    old = connection.info.server_version < 160000
    predictions = [predict(text) for text in texts]
    pieces = []
    for text, prediction in zip(texts, predictions, strict=True):
        if isinstance(prediction, lexer.Scan):
            for source in (text.encode(), prediction.blanked):
                pieces += [source[s.start : s.end] for s in prediction.spans]
    answers = iter(alone(connection, pieces))
    for text, prediction in zip(texts, predictions, strict=True):
        got = whole(connection, text)
        verdict["strings"] += 1
        failed = got[-1:] and isinstance(got[-1], str)
        if isinstance(prediction, str):
            verdict[prediction] += 1
            verdict["  of these the server runs"] += not failed
            if prediction == "unknown: lexical error" and not failed:
                verdict.wrong("lexical error of the lexer alone", text)
            continue
        plain = [next(answers) for _ in prediction.spans]
        blanked = [next(answers) for _ in prediction.spans]
        expected: list[Result] = []
        for result in plain:
            expected.append(result)
            if isinstance(result, str):
                break
        verdict["statements"] += len(plain)
        newer = old and NEWER.search(text) is not None
        if got == [SYNTAX] and (newer or SYNTAX in plain):
            # nothing of it ran; libpg_query takes a parameter for more than PostgreSQL 18's own grammar does
            verdict["refused whole: " + ("newer syntax" if newer else "grammar")] += 1
        elif plain != blanked:
            verdict.wrong("the blanked text means something else", text, (plain, blanked))
        elif got == [SYNTAX]:
            verdict.wrong("the server refuses it", text)
        elif got != expected:
            verdict.wrong("other results", text, (got, expected))
        elif failed:
            verdict["agreed, up to an error at run time"] += 1
        else:
            verdict["agreed"] += 1


def run(dsn: str, strings: int, seed: int) -> Verdict:
    """Compares so many generated strings."""
    generator = Generator(seed)
    verdict = Verdict()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_encoding = 'UTF8'")
        for start in range(0, strings, BATCH):
            compare(connection, [generator.string() for _ in range(min(BATCH, strings - start))], verdict)
    return verdict


def test_the_server_runs_what_the_lexer_predicts(embedded_server: EmbeddedServer) -> None:
    verdict = run(embedded_server.dsn, STRINGS, seed=3)
    assert not verdict.examples, "\n".join(verdict.examples)
    assert verdict["refused whole: newer syntax"] + verdict["refused whole: grammar"] < STRINGS * 0.001
    # or nothing would have been compared
    assert verdict["agreed"] > STRINGS * 0.5
    assert verdict["unknown: grammar rejects"] + verdict["unknown: lexical error"] > STRINGS * 0.02


def main() -> None:
    dsn = sys.argv[1]
    strings = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    start = monotonic()
    verdict = run(dsn, strings, seed)
    for kind, count in sorted(verdict.items()):
        print(f"{count:>9,}  {kind}")
    print(f"{monotonic() - start:.0f} s")
    print(*verdict.examples, sep="\n")
    sys.exit(bool(verdict.examples))


if __name__ == "__main__":
    main()
