"""``ringfence doctor``: what it prints, and its exit status."""

import json

import pytest

from ringfence import doctor
from ringfence.cli import app
from ringfence.doctor import Examination, Finding, Verdict

WELL = Finding("bt", Verdict.OK, "it runs")
LACKING = Finding("kvm", Verdict.LACKING, "no permission", "join the group")
FAILED = Finding("bt", Verdict.FAILED, "nothing runs", "use another host")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    findings = [WELL, LACKING]
    monkeypatch.setattr(doctor, "examine", lambda: Examination("bt", tuple(findings)))
    return findings


@pytest.mark.usefixtures("found")
def test_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.invoke(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok  bt   it runs",
        "--  kvm  no permission",
        "         to mend it: join the group",
    ]


def test_a_host_where_nothing_runs(
    found: list[Finding], capsys: pytest.CaptureFixture[str]
) -> None:
    found[0] = FAILED
    assert app.invoke(["doctor"]) == 1
    assert "no  bt   nothing runs" in capsys.readouterr().out
    assert app.invoke(["doctor", "--json"]) == 1


@pytest.mark.usefixtures("found")
def test_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.invoke(["doctor", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["engine"] == "bt"
    assert printed["findings"][1] == {
        "name": "kvm",
        "verdict": "lacking",
        "text": "no permission",
        "mend": "join the group",
    }
