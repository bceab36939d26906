"""Operating systems and browsers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.openrtb.agents import browser_of_agent, browser_of_brands, is_grease, os_name, os_of_agent

CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36"


@pytest.mark.parametrize(
    ("name", "os"),
    [
        ("iOS", "ios"),
        ("iPhone OS", "ios"),
        ("iPadOS", "ios"),
        ("Mac OS X", "macos"),
        ("macOS", "macos"),
        ("OS X", "macos"),
        ("Android", "android"),
        ("Windows", "windows"),
        ("Windows Phone", "windows phone"),
        ("Chrome OS", "chromeos"),
        ("Tizen", "tizen"),
        ("webOS TV", "webos"),
        ("Roku OS", "roku"),
        ("tvOS", "tvos"),
        ("Ubuntu", "linux"),
        ("BeOS", "beos"),
    ],
)
def test_os_name(name: str, os: str):
    """Spellings of one system are one value; unknown ones stay."""
    assert os == os_name(name)


@pytest.mark.parametrize(
    ("agent", "system", "browser"),
    [
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {CHROME}", ("windows", "10.0"), "chrome"),
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64) {CHROME} Edg/124.0",
            ("windows", "10.0"),
            "edge",
        ),
        (f"Mozilla/5.0 (X11; Linux x86_64) {CHROME} OPR/109.0", ("linux", ""), "opera"),
        (
            "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) "
            "SamsungBrowser/24.0 Chrome/117.0.0.0 Mobile Safari/537.36",
            ("android", "14"),
            "samsung",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4_1 like Mac OS X) AppleWebKit/605.1.15 "
            "(KHTML, like Gecko) Version/17.4.1 Mobile/15E148 Safari/604.1",
            ("ios", "17_4_1"),
            "safari",
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 16_1 like Mac OS X) AppleWebKit/605.1.15 CriOS/120.0 "
            "Mobile/15E148 Safari/604.1",
            ("ios", "16_1"),
            "chrome",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 "
            "(KHTML, like Gecko) Version/17.0 Safari/605.1.15",
            ("macos", "10_15_7"),
            "safari",
        ),
        (
            "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
            ("linux", ""),
            "firefox",
        ),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {CHROME}", ("chromeos", ""), "chrome"),
        (
            "Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) AppleWebKit/537.36 SamsungBrowser/2.2 "
            "Chrome/63.0 TV Safari/537.36",
            ("tizen", "6.0"),
            "samsung",
        ),
        (f"Mozilla/5.0 (Web0S; Linux/SmartTV) {CHROME}", ("webos", ""), "chrome"),
        ("Roku/DVP-12.5 (12.5.0.4178-88)", ("roku", "12.5"), ""),
        (
            "Mozilla/5.0 (Windows Phone 10.0; Android 6.0.1; Microsoft; Lumia) Edge/15.15254",
            ("windows phone", "10.0"),
            "edge",
        ),
        ("Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko", ("windows", "6.1"), "ie"),
        ("MyApp/1.0 CFNetwork/1408.0.4 Darwin/22.5.0", ("ios", ""), ""),
        ("Mozilla/5.0 (compatible; Microsoft stuff)", ("", ""), ""),
        ("", ("", ""), ""),
    ],
)
def test_agents(agent: str, system: tuple[str, str], browser: str):
    """The order of the rules decides: most browsers also claim to be others."""
    assert system == os_of_agent(agent)
    assert browser == browser_of_agent(agent)


@pytest.mark.parametrize(
    ("brands", "browser"),
    [
        (["Chromium", "Google Chrome", "Not.A/Brand"], "chrome"),
        (["Chromium", "Microsoft Edge", " Not A;Brand"], "edge"),
        (["Opera", "Chromium"], "opera"),
        (["Samsung Internet", "Chromium"], "samsung"),
        (["Android WebView", "Chromium"], "chrome"),
        (["(Not(A:Brand"], ""),
        (["Nobody"], ""),
        ([], ""),
    ],
)
def test_brands(brands: list[str], browser: str):
    """Structured brands name the browser; Chromium stands beside most of them."""
    assert browser == browser_of_brands(brands)


@pytest.mark.parametrize("brand", ["Not.A/Brand", " Not A;Brand", "Not_A Brand", "Not)A;Brand"])
def test_grease(brand: str):
    """Random brands that only test parsers are nobody."""
    assert is_grease(brand)
    assert not is_grease("Notion")


def test_long_agents_are_cut():
    """A user agent of 100 KB costs no more than a long real one."""
    assert ("", "") == os_of_agent("x" * 600 + "android 9")


@given(st.text())
def test_any_agent_is_read(agent: str):
    """No text raises."""
    assert isinstance(browser_of_agent(agent), str)
    assert 2 == len(os_of_agent(agent))
