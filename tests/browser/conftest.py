"""Debian's chromium before a real `pgproxy up`: what people see, and what psql then does."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.integration.system import Person, System, clean_environment, running


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-up-"))
    with running(directory / "data") as started:
        yield started
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path is not None, "chromium is not there: `make browser` installs it"
    with sync_playwright() as playwright:
        # Its own sandbox needs privileges that a container's root does not give.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


Open = Callable[..., Page]


@pytest.fixture
def visit(system: System, chromium: Browser) -> Iterator[Open]:
    """`visit(person, width=…, dark=…)`: a page of somebody who has logged in. Nothing may fail in it unseen."""
    contexts: list[BrowserContext] = []
    failures: list[str] = []

    def visit(person: Person | None, *, width: int = 1280, height: int = 900, dark: bool = False, **more: Any) -> Page:
        context = chromium.new_context(
            base_url=system.api,
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            **more,
        )
        contexts.append(context)
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda line: failures.append(line.text) if "Content Security" in line.text else None)
        page.on("response", lambda it: failures.append(it.url) if "/static/" in it.url and it.status >= 400 else None)
        if person is not None:
            token = next(each["token"] for each in system.facts["reviewers"] if each["name"] == person.name)
            page.goto("/")
            page.get_by_label("Reviewer's token").fill(token)
            page.get_by_role("button", name="Log in with the token").click()
            page.get_by_role("heading", name="Requests").wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert failures == []


class Psql:
    """A psql that waits for somebody."""

    def __init__(self, system: System, sql: str) -> None:
        self.process = subprocess.Popen(
            system.psql("-c", sql),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )

    def ends(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture
def psql(system: System) -> Iterator[Callable[[str], Psql]]:
    started: list[Psql] = []

    def start(sql: str) -> Psql:
        started.append(Psql(system, sql))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shots", default="", help="a directory for screenshots of every page")
