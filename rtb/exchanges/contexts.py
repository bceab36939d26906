"""Reads where the ad will be and for whom: site, app or dooh; content; device; user; place.

Every token is the text of its field without surrounding white space; hashing lowers ASCII letters.
`c` is the channel's object (site, app or dooh), "else" takes the first that says something.

    token               read from
    CHANNEL             "site", "app", "dooh"; head.channel 1, 2, 3
    PUBLISHER           c.publisher.id
    DOMAIN              host of c.domain, else of site.page; the host and its parents (`hosts`)
    BUNDLE              app.bundle
    PAGE_CATEGORY       "cattax:code" of c.cat, sectioncat, pagecat with c.cattax (1 when absent)
                        and content.cat with content.cattax; in taxonomy 1 "1:IAB1" beside
                        "1:IAB1-2"
    KEYWORD             c.keywords (comma separated) and kwarray, content.keywords and kwarray
    VENUE               dooh.venuetype, else venuetypeid
    CONTENT_LANGUAGE    primary subtag of content.language, else langb
    CONTENT_GENRE       content.genre (comma separated), content.genres
    CONTENT_RATING      content.contentrating
    CONTENT_CHANNEL     id and name of content.channel and of content.network
    DATA_SEGMENT        of user.data and content.data: "provider:segment" and ":segment", provider
                        = data.name else data.id, segment = segment.id else segment.name
    KEY_VALUE           members of c.ext.data and user.ext.data* (`sheet.key_values`)
    USER_KEYWORD        user.keywords, kwarray
    COUNTRY             alpha-3; alpha-2 is translated (OTHER_NOTATION), anything else ignored. Of
                        the place: device.geo when it has a country, else user.geo* when it has,
                        else device.geo
    REGION              "usa-ca": country "-" region of the place; a region "US-CA" or "USA-CA"
                        loses its prefix. None without a country
    CITY POSTCODE METRO city, zip*, metro of the place
    DEVICE_TYPE         device.devicetype when over 0 (also head.devicetype)
    CONNECTION          device.connectiontype when over 0
    CARRIER             device.carrier; device.mccmnc, else device.ext.mccmnc ("310005" = "310-005")
    LANGUAGE            primary subtag of device.language, else langb
    MAKE MODEL          device.make; device.model, else sua.model
    OS                  `agents.os_name` of device.os, else of sua.platform.brand; else from ua
    BROWSER             `agents.browser_of_brands` of sua.browsers, else from ua

    head
    os_version          pack_version of device.osv, else of sua.platform.version joined by dots,
                        else from ua when OS came from there too
    lat, lon            device.geo.lat* and lon*: within +-90 and +-180, not both 0
    utcoffset_min       device.geo.utcoffset, else user.geo's*; within +-840

    * says more of a person than where and on what an ad is shown: never read where a signal forbids
      personal data. What else is personal has dimensions of its own (`records.PERSONAL_DIMS`),
      which decisions then leave out.
"""

from typing import Final

from rtb.base.records import Dim, Flag, Quirk, pack_version
from rtb.exchanges.sheet import Sheet, key_values
from rtb.openrtb import agents
from rtb.openrtb.countries import ALPHA3
from rtb.openrtb.hosts import host_of, with_parents
from rtb.openrtb.lists import CATEGORY_TAXONOMY_DEFAULT
from rtb.openrtb.reading import Object, Reader

_UTCOFFSET_MIN_MAX: Final = 14 * 60  # Kiribati
_EXACT: Final = ("zip", "lat", "lon")  # members of geo that lead to a door
_CHANNELS: Final = {"site": 1, "app": 2, "dooh": 3}


def read_context(reader: Reader, sheet: Sheet, root: Object) -> None:
    """Adds the tokens and head facts of everything but the impressions."""
    device, user = reader.object(root, "device"), reader.object(root, "user")
    _read_channel(reader, sheet, root)
    _read_user(reader, sheet, user)
    _read_place(reader, sheet, device, user)
    _read_device(reader, sheet, device)


def language_of(tag: str) -> str:
    """The primary subtag of a language tag: "en-US", "en_US" -> "en"."""
    return tag.replace("_", "-").partition("-")[0]


def _read_channel(reader: Reader, sheet: Sheet, root: Object) -> None:
    present = [name for name in _CHANNELS if isinstance(root.get(name), dict)]
    for name in _CHANNELS:
        reader.object(root, name)  # counts the quirk of a wrong type
    if not present:
        return
    if len(present) > 1:
        reader.note(Quirk.SITE_AND_APP)
    channel = next((name for name in present if root[name]), present[0])
    owner = reader.object(root, channel)
    sheet.head["channel"] = _CHANNELS[channel]
    sheet.target(Dim.CHANNEL, channel)
    sheet.target(Dim.PUBLISHER, reader.text(reader.object(owner, "publisher"), "id"))
    _read_domain(reader, sheet, owner, channel)
    if channel == "app":
        sheet.target(Dim.BUNDLE, reader.text(owner, "bundle"))
    if channel == "dooh":
        venues, key = reader.home(owner, "venuetype", (owner, "venuetypeid"))
        for venue in reader.texts(venues, key):
            sheet.target(Dim.VENUE, venue)
    _read_categories(reader, sheet, owner, ("cat", "sectioncat", "pagecat"))
    _read_words(reader, sheet, owner, Dim.KEYWORD)
    _read_content(reader, sheet, reader.object(owner, "content"))
    key_values(reader, sheet, reader.object(owner, "ext"))


def _read_domain(reader: Reader, sheet: Sheet, owner: Object, channel: str) -> None:
    host = host_of(reader.text(owner, "domain"))
    if not host and channel == "site":
        host = host_of(reader.text(owner, "page"))
    for domain in with_parents(host):
        sheet.target(Dim.DOMAIN, domain)


def _read_categories(reader: Reader, sheet: Sheet, owner: Object, keys: tuple[str, ...]) -> None:
    cattax = reader.count(owner, "cattax") or CATEGORY_TAXONOMY_DEFAULT
    for key in keys:
        for code in reader.texts(owner, key):
            sheet.target(Dim.PAGE_CATEGORY, f"{cattax}:{code}")
            tier1, dash, _ = code.partition("-")
            if cattax == CATEGORY_TAXONOMY_DEFAULT and dash:
                sheet.target(Dim.PAGE_CATEGORY, f"{cattax}:{tier1}")


def _read_words(reader: Reader, sheet: Sheet, owner: Object, dim: Dim) -> None:
    """Keywords of both spellings; `keywords` as a list is another notation of `kwarray`."""
    words: list[str] = []
    if isinstance(owner.get("keywords"), list):
        reader.note(Quirk.OTHER_NOTATION)
        words += reader.texts(owner, "keywords")
    else:
        words += _comma_separated(reader.text(owner, "keywords"))
    words += reader.texts(owner, "kwarray")
    for word in words:
        sheet.target(dim, word)


def _read_content(reader: Reader, sheet: Sheet, content: Object) -> None:
    _read_categories(reader, sheet, content, ("cat",))
    _read_words(reader, sheet, content, Dim.KEYWORD)
    sheet.target(Dim.CONTENT_LANGUAGE, _language(reader, content))
    genres = _comma_separated(reader.text(content, "genre")) + reader.texts(content, "genres")
    for genre in genres:
        sheet.target(Dim.CONTENT_GENRE, genre)
    sheet.target(Dim.CONTENT_RATING, reader.text(content, "contentrating"))
    for key in ("channel", "network"):
        station = reader.object(content, key)
        for name in ("id", "name"):
            sheet.target(Dim.CONTENT_CHANNEL, reader.text(station, name))
    _read_segments(reader, sheet, content)


def _read_user(reader: Reader, sheet: Sheet, user: Object) -> None:
    _read_words(reader, sheet, user, Dim.USER_KEYWORD)
    _read_segments(reader, sheet, user)
    ext = reader.object(user, "ext")
    if not sheet.head["privacy"]:
        key_values(reader, sheet, ext)


def _read_segments(reader: Reader, sheet: Sheet, owner: Object) -> None:
    for data in reader.objects(owner, "data"):
        provider = reader.text(data, "name") or reader.text(data, "id")
        for segment in reader.objects(data, "segment"):
            name = reader.text(segment, "id") or reader.text(segment, "name")
            if name:
                sheet.target(Dim.DATA_SEGMENT, f":{name}")
                if provider:
                    sheet.target(Dim.DATA_SEGMENT, f"{provider}:{name}")


def _read_place(reader: Reader, sheet: Sheet, device: Object, user: Object) -> None:
    geo, home = reader.object(device, "geo"), reader.object(user, "geo")
    if sheet.head["privacy"]:
        geo = {key: value for key, value in geo.items() if key not in _EXACT}
        home = {}
    place = geo if reader.has(geo, "country") or not reader.has(home, "country") else home
    country = _country(reader, place)
    sheet.target(Dim.COUNTRY, country)
    region = reader.text(place, "region")
    prefix, dash, rest = region.partition("-")
    if dash and ALPHA3.get(prefix.upper(), prefix.upper()) == country:
        region = rest
    if country and region:
        sheet.target(Dim.REGION, f"{country}-{region}")
    for key, dim in (("city", Dim.CITY), ("zip", Dim.POSTCODE), ("metro", Dim.METRO)):
        sheet.target(dim, reader.text(place, key))
    _read_position(reader, sheet, geo)
    owner, key = (geo if reader.has(geo, "utcoffset") else home), "utcoffset"
    if reader.has(owner, key):
        offset_min = reader.integer(owner, key, _UTCOFFSET_MIN_MAX + 1)
        if abs(offset_min) > _UTCOFFSET_MIN_MAX:
            reader.note(Quirk.BAD_VALUE_IGNORED)
        else:
            sheet.head["utcoffset_min"] = offset_min
            sheet.flags |= Flag.HAS_UTCOFFSET


def _country(reader: Reader, place: Object) -> str:
    code = reader.text(place, "country")
    if not code:
        return ""
    if not (code.isascii() and code.isalpha() and len(code) in (2, 3)):
        reader.note(Quirk.BAD_VALUE_IGNORED)
        return ""
    if len(code) == 2:
        reader.note(Quirk.OTHER_NOTATION)
        return ALPHA3.get(code.upper(), "")
    return code.upper()


def _read_position(reader: Reader, sheet: Sheet, geo: Object) -> None:
    lat, lon = reader.real(geo, "lat"), reader.real(geo, "lon")
    if lat is None or lon is None:
        return
    if abs(lat) > 90 or abs(lon) > 180 or (lat == 0 and lon == 0):
        reader.note(Quirk.BAD_VALUE_IGNORED)
        return
    sheet.head |= {"lat": lat, "lon": lon}
    sheet.flags |= Flag.HAS_GEO


def _read_device(reader: Reader, sheet: Sheet, device: Object) -> None:
    sua = reader.object(device, "sua")
    devicetype = reader.count(device, "devicetype")
    connection = reader.count(device, "connectiontype")
    sheet.head["devicetype"] = devicetype
    for dim, number in ((Dim.DEVICE_TYPE, devicetype), (Dim.CONNECTION, connection)):
        if number:
            sheet.target(dim, str(number))
    sheet.target(Dim.CARRIER, reader.text(device, "carrier"))
    owner, key = reader.home(device, "mccmnc", (reader.object(device, "ext"), "mccmnc"))
    sheet.target(Dim.CARRIER, _network(reader.text(owner, key)))
    sheet.target(Dim.LANGUAGE, _language(reader, device))
    sheet.target(Dim.MAKE, reader.text(device, "make"))
    sheet.target(Dim.MODEL, reader.text(device, "model") or reader.text(sua, "model"))
    _read_system(reader, sheet, device, sua)


def _read_system(reader: Reader, sheet: Sheet, device: Object, sua: Object) -> None:
    agent = reader.text(device, "ua")
    platform = reader.object(sua, "platform")
    named = reader.text(device, "os") or reader.text(platform, "brand")
    version = reader.text(device, "osv") or ".".join(reader.texts(platform, "version"))
    if named:
        system = agents.os_name(named)
    else:
        system, agent_version = agents.os_of_agent(agent)
        version = version or agent_version
    sheet.target(Dim.OS, system)
    sheet.head["os_version"] = pack_version(version)
    brands = [reader.text(browser, "brand") for browser in reader.objects(sua, "browsers")]
    sheet.target(Dim.BROWSER, agents.browser_of_brands(brands) or agents.browser_of_agent(agent))


def _language(reader: Reader, owner: Object) -> str:
    return language_of(reader.text(owner, "language") or reader.text(owner, "langb"))


def _network(mccmnc: str) -> str:
    if mccmnc.isascii() and mccmnc.isdigit() and len(mccmnc) in (5, 6):
        return f"{mccmnc[:3]}-{mccmnc[3:]}"
    return mccmnc


def _comma_separated(text: str) -> list[str]:
    return [part for word in text.split(",") if (part := word.strip(" \t\r\n"))]
