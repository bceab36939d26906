"""What people hold in their hands: devices with the user agents that they really send."""

from dataclasses import dataclass
from typing import Final

from rtb.sim.draws import Weighted

PC, CTV, PHONE, TABLET = 2, 3, 4, 5  # OpenRTB list: device types

_CHROME: Final = (
    "Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/{browser}.0.0.0{mobile} Safari/537.36"
)
_SAFARI: Final = (
    "Mozilla/5.0 ({system}) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/{browser} {mobile}Safari/604.1"
)
_FIREFOX: Final = "Mozilla/5.0 ({system}; rv:{browser}.0) Gecko/20100101 Firefox/{browser}.0"
_WEBVIEW: Final = (
    "Mozilla/5.0 ({system}; wv) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Version/4.0 Chrome/{browser}.0.0.0 Mobile Safari/537.36"
)
_IOS_APP: Final = "Mozilla/5.0 ({system}) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"


@dataclass(frozen=True, slots=True)
class Device:
    """One model with one version of its system.

    `os` as requests spell it; `family` as targeting does; `agents` for web pages, `app_agent` for
    apps ("" where the device has no such traffic).
    """

    type: int
    make: str
    model: str
    os: str
    family: str
    osv: str
    width: int
    height: int
    agents: tuple[str, ...]
    app_agent: str = ""

    @property
    def mobile(self) -> bool:
        return self.type in {PHONE, TABLET}


def _iphone(model: str, osv: str, width: int, height: int) -> Device:
    mask = osv.replace(".", "_")
    system = f"iPhone; CPU iPhone OS {mask} like Mac OS X"
    agent = _SAFARI.format(system=system, browser=osv, mobile="Mobile/15E148 ")
    app = _IOS_APP.format(system=system)
    return Device(PHONE, "Apple", model, "iOS", "ios", osv, width, height, (agent,), app)


def _ipad(model: str, osv: str) -> Device:
    system = f"iPad; CPU OS {osv.replace('.', '_')} like Mac OS X"
    agent = _SAFARI.format(system=system, browser=osv, mobile="Mobile/15E148 ")
    app = _IOS_APP.format(system=system)
    return Device(TABLET, "Apple", model, "iOS", "ios", osv, 1640, 2360, (agent,), app)


def _android(make: str, model: str, osv: str, kind: int = PHONE) -> Device:
    system = f"Linux; Android {osv}; {model}"
    agents = tuple(
        _CHROME.format(system=system, browser=browser, mobile=" Mobile" * (kind == PHONE))
        for browser in (126, 128, 131)
    )
    app = _WEBVIEW.format(system=system, browser=128)
    size = (1080, 2340) if kind == PHONE else (1600, 2560)
    return Device(kind, make, model, "Android", "android", osv, *size, agents, app)


def _pc(make: str, os: str, family: str, osv: str, system: str, browsers: str) -> Device:
    kinds = {
        "chrome": _CHROME.format(system=system, browser=131, mobile=""),
        "edge": _CHROME.format(system=system, browser=130, mobile="") + " Edg/130.0.0.0",
        "firefox": _FIREFOX.format(system=system, browser=132),
        "safari": _SAFARI.format(system=system, browser="17.6", mobile="").replace("604", "605"),
    }
    agents = tuple(kinds[name] for name in browsers.split())
    return Device(PC, make, "", os, family, osv, 1920, 1080, agents)


def _tv(make: str, model: str, os: str, family: str, osv: str, agent: str) -> Device:
    return Device(CTV, make, model, os, family, osv, 1920, 1080, (), agent)


_MAC: Final = "Macintosh; Intel Mac OS X 10_15_7"
_WINDOWS: Final = "Windows NT 10.0; Win64; x64"

_ALL: Final[tuple[tuple[float, Device], ...]] = (
    (6, _iphone("iPhone15,4", "17.6", 1179, 2556)),
    (7, _iphone("iPhone16,1", "18.1", 1179, 2556)),
    (4, _iphone("iPhone13,2", "16.7", 1170, 2532)),
    (2, _iphone("iPhone12,8", "15.8", 750, 1334)),
    (7, _android("Samsung", "SM-S918B", "14")),
    (6, _android("Samsung", "SM-A546B", "13")),
    (4, _android("Google", "Pixel 8", "15")),
    (4, _android("Xiaomi", "2201117TG", "12")),
    (3, _android("Motorola", "moto g(30)", "11")),
    (3, _ipad("iPad13,18", "17.5")),
    (2, _android("Samsung", "SM-X700", "13", TABLET)),
    (22, _pc("", "Windows", "windows", "10.0", _WINDOWS, "chrome chrome edge firefox")),
    (9, _pc("Apple", "macOS", "macos", "10.15.7", _MAC, "safari chrome chrome")),
    (2, _pc("", "Linux", "linux", "", "X11; Linux x86_64", "chrome firefox")),
    (5, _tv("Roku", "Ultra", "Roku", "roku", "12.5", "Roku/DVP-12.5 (12.5.0.4178-91)")),
    (
        4,
        _tv("Samsung", "QN65Q80C", "Tizen", "tizen", "6.5",
            "Mozilla/5.0 (SMART-TV; LINUX; Tizen 6.5) AppleWebKit/537.36 (KHTML, like Gecko) "
            "85.0.4183.93/6.5 TV Safari/537.36"),
    ),
    (
        3,
        _tv("Amazon", "AFTMM", "Fire OS", "fireos", "7.6",
            "Mozilla/5.0 (Linux; Android 9; AFTMM Build/PS7633) AppleWebKit/537.36 (KHTML, like "
            "Gecko) Version/4.0 Chrome/114.0.5735.196 Mobile Safari/537.36"),
    ),
    (
        2,
        _tv("LG", "OLED55C3", "webOS", "webos", "6.3",
            "Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/94.0.4606.128 Safari/537.36 WebAppManager"),
    ),
)  # fmt: skip

DEVICES: Final = Weighted((device for _, device in _ALL), (weight for weight, _ in _ALL))
