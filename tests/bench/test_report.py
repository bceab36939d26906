"""The published tables are made from result files and from nothing else."""

from pathlib import Path

import pytest

from bench import report
from bench.record import Result


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one result, a README and a page of benchmarks."""
    folder = tmp_path / "bench" / "results"
    result = Result("ratio", "What does a request cost?", {"rounds": 3, "modules": ["a", "b"]})
    result.add("ratio", "multiple of the floor", 4.5, "x", 5.0)
    result.add("floor_us", "the C floor", 5.6, "us")
    result.write(folder)
    text = f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(text)
    (tmp_path / "docs" / "benchmarks.md").write_text(text)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "RESULTS", folder)
    monkeypatch.setattr(report, "README", tmp_path / "README.md")
    monkeypatch.setattr(report, "DOCS", tmp_path / "docs" / "benchmarks.md")
    return tmp_path


def test_check_fails_until_written(project: Path) -> None:
    """What stands in the documents is compared with what the files say."""
    before, written, after = report.main(["--check"]), report.main([]), report.main(["--check"])

    assert (1, 0, 0) == (before, written, after)


def test_only_the_text_between_markers_changes(project: Path) -> None:
    """The README keeps its own words, and shows the figures that it chose."""
    report.main([])
    text = (project / "README.md").read_text()

    assert ("# Title\n\n", "\n\nafter\n") == (text[:9], text[-8:])
    assert "| multiple of the floor | 4.5 x | <= 5 | yes |" in text
    assert "the C floor" not in text


def test_the_page_shows_every_figure(project: Path) -> None:
    """Details that the README leaves out are in the page, with their parameters."""
    report.main([])
    text = (project / "docs" / "benchmarks.md").read_text()

    assert "| the C floor | 5.6 us |  |  |" in text
    assert "`bench/results/ratio.json` (rounds 3, modules a b)" in text


def test_a_document_without_markers_is_an_error(project: Path) -> None:
    """A table that cannot be placed must not be dropped in silence."""
    (project / "README.md").write_text("no markers")

    assert 1 == report.main([])


def test_nothing_measured_says_so() -> None:
    """Before the first run there is a sentence, not an empty table."""
    assert "Nothing measured yet: run `make bench`.\n" == report.readme_block({})
    assert "Nothing measured yet: run `make bench`.\n" == report.docs_block({})
