"""The page of a report in a real browser, with clicks of the mouse."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tagger.cli import main
from tagger.records import Album
from tests.browser import BROWSER_MARKS, Visit, expect, visiting
from tests.front_door import ANY, Scan
from tests.reports import HOSTILE, many_outcomes, write_run

MANY = 20_000

pytestmark = [
    *BROWSER_MARKS,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("page"),  # one big page, in one worker
]


@pytest.fixture(scope="module")
def big_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    outcomes = list(many_outcomes(MANY))
    albums = {each.track.path: Album("A", each.track.path.parent.name) for each in outcomes}
    state, page = write_run(folder, outcomes, albums), folder / "page.html"
    assert main(["report", "--state", str(state), "--html", str(page)]) == 0
    return page


@pytest.fixture
def big(big_page: Path) -> Iterator[Visit]:
    with visiting(big_page.as_uri()) as visit:
        yield visit


def rows(visit: Visit) -> Any:
    return visit.page.locator("#rows tbody tr")


def shown(visit: Visit) -> int:
    """Return how many tracks the table shows, as it says itself."""
    words = visit.page.locator(".dt-info").inner_text().replace(",", "").split()
    return int(words[words.index("of") + 1])


def test_the_page_of_a_real_scan(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert Scan(capsys, library, *ANY, "--html", page).code == 0
    with visiting(page.as_uri()) as visit:
        expect(visit.page.get_by_role("heading", name="3 tracks, and what became")).to_be_visible()
        assert rows(visit).count() == 3
        assert visit.page.locator("#genre-chart svg, #score-chart svg").count() >= 2
        assert visit.requests == [page.as_uri()]
        assert not visit.complaints


def test_nothing_on_a_page_runs_but_its_own(big: Visit) -> None:
    big.page.get_by_label("Filter by Track").fill("script>")
    expect(rows(big)).to_have_count(1)
    assert HOSTILE.split("\n")[1] in rows(big).inner_text()
    big.page.evaluate("new DataTable.Api('#rows').rows().invalidate()")
    big.page.locator(".dt-search input").fill("onerror=alert(1)> & <")
    expect(rows(big)).to_have_count(1)
    big.page.get_by_text("As a table").first.click()
    assert "{{ 7*7 }}" in big.page.locator("details").first.inner_text()
    assert not big.complaints
    assert len(big.requests) == 1


def test_sorting_and_filtering_many_rows(big: Visit) -> None:
    assert shown(big) == MANY
    for _ in range(2):
        big.page.locator("#rows th").get_by_text("Score", exact=True).click()
    best = [
        float(text) for text in big.page.locator("#rows td.number:nth-child(4)").all_inner_texts()
    ]
    assert best == sorted(best, reverse=True)
    assert best[0] > 0.99
    big.page.get_by_label("Filter by Action").select_option("low-score")
    assert shown(big) == MANY // 10
    assert set(big.page.locator("#rows tbody td:nth-child(2)").all_inner_texts()) == {"low-score"}
    big.page.get_by_label("Filter by Track").fill("artist 1/")
    expect(big.page.locator(".dt-info")).to_contain_text("of 20 ")


def test_what_stands_above_the_table_shows_its_tracks_in_it(big: Visit) -> None:
    cell = big.page.locator(".matrix button").first
    cell.click()
    assert shown(big) == int(cell.inner_text())
    assert "had" in big.page.get_by_role("status").filter(has_text="heard").inner_text()
    failure = big.page.get_by_role("button", name="Too short")
    failure.click()
    assert shown(big) == int(failure.inner_text().split(": ")[1].replace(",", ""))
    big.page.locator("button[data-action=kept]").click()
    assert shown(big) == MANY // 10
    big.page.get_by_text("As a table").first.click()
    genre = big.page.locator("button[data-genre=Jazz]")
    line = big.page.locator("details tr").filter(has=genre)
    genre.click()
    counted = sum(map(int, line.locator("td").all_inner_texts()))
    assert shown(big) >= counted  # those that had it and were written with another one too
    odd = big.page.locator("button[data-track]").first
    odd.click()
    assert shown(big) == 1
    big.page.get_by_role("button", name="Show all").click()
    assert shown(big) == MANY


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_scheme_and_the_width_of_the_screen(big_page: Path, scheme: str) -> None:
    options = {"color_scheme": scheme, "viewport": {"width": 390, "height": 844}}
    with visiting(big_page.as_uri(), **options) as visit:
        paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
        assert visit.page.evaluate("document.body.scrollWidth") <= 390
        visit.page.locator("#rows td.dtr-control").first.click()
        expect(visit.page.locator("#rows .dtr-details").first).to_contain_text("All scores")


def test_on_paper_there_is_more_of_the_table_and_nothing_to_click(big_page: Path) -> None:
    with visiting(big_page.as_uri(), color_scheme="dark") as visit:
        visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        visit.page.emulate_media(media="print")
        assert rows(visit).count() == 500
        assert not visit.page.locator(".dt-search").is_visible()
        assert not visit.page.evaluate("document.documentElement.classList.contains('dark')")
        visit.page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert rows(visit).count() == 25


def test_without_scripts_the_numbers_are_there(big_page: Path) -> None:
    with visiting(big_page.as_uri(), java_script_enabled=False) as visit:
        text = visit.page.locator("main").inner_text()
        assert f"{MANY // 2:,} written" in " ".join(text.split())
        assert "Too short" in text
        assert "need JavaScript" in text


def test_the_data_of_the_page_are_those_of_the_report(big_page: Path) -> None:
    with visiting(big_page.as_uri()) as visit:
        numbers = json.loads(visit.page.locator("#numbers").inner_text())
    assert numbers["tracks"] == MANY
    assert sum(numbers["low_scores"]) == MANY // 10
