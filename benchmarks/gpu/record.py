"""What a run finds: one line of JSON a finding, written at once, and the table at the end."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        section: which part of the run.
        name: what was measured or checked.
        value: the number, or None where there is none.
        unit: of the number.
        bar: the least (or, with `at_most`, the most) that is asked for; None where nothing is.
        at_most: whether the bar is an upper one.
        ok: whether it holds; None where there is no bar.
        note: anything else, in words.
    """

    section: str
    name: str
    value: float | None = None
    unit: str = ""
    bar: float | None = None
    at_most: bool = False
    ok: bool | None = None
    note: str = ""


class Recorder:
    """Writes findings of one section to a file, and says them."""

    def __init__(self, path: Path, section: str, *, judge: bool) -> None:
        self._path = path
        self._section = section
        self._judge = judge

    def number(
        self,
        name: str,
        value: float,
        unit: str = "",
        *,
        bar: float | None = None,
        at_most: bool = False,
        note: str = "",
    ) -> None:
        """A measurement. Without judging (a dry run), its bar is printed and decides nothing."""
        ok = None
        if bar is not None and self._judge:
            ok = value <= bar if at_most else value >= bar
        self._write(Finding(self._section, name, value, unit, bar, at_most, ok, note))

    def check(self, name: str, passed: bool, note: str = "") -> None:
        """Something that holds or does not."""
        self._write(Finding(self._section, name, ok=passed, note=note))

    def remark(self, name: str, note: str) -> None:
        """Something to know."""
        self._write(Finding(self._section, name, note=note))

    def _write(self, finding: Finding) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(finding)) + "\n")
        print(line(finding), flush=True)


def read(path: Path) -> list[Finding]:
    """All findings of a file; none if it is missing. A line cut short by a kill is left out."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(Finding(**json.loads(text)))
        except json.JSONDecodeError:
            continue
    return found


def line(finding: Finding) -> str:
    """A row of the table."""
    value = "" if finding.value is None else f"{finding.value:,.4g} {finding.unit}".strip()
    sign = "≤" if finding.at_most else "≥"
    bar = "" if finding.bar is None else f"{sign} {finding.bar:,.4g}"
    verdict = {True: "ok", False: "NO", None: "–"}[finding.ok]
    return (
        f"{verdict:3} {finding.section:12} {finding.name:52} {value:>18}  {bar:>10}  {finding.note}".rstrip()
    )


def table(findings: Iterable[Finding]) -> str:
    """What has a bar or a verdict, a row each, and a count."""
    rows = [finding for finding in findings if finding.bar is not None or finding.ok is not None]
    missed = sum(finding.ok is False for finding in rows)
    held = sum(finding.ok is True for finding in rows)
    head = f"{'':3} {'section':12} {'what':52} {'measured':>18}  {'bar':>10}"
    return "\n".join(
        [head, *map(line, rows), f"{held} hold, {missed} do not, {len(rows) - held - missed} open"]
    )
