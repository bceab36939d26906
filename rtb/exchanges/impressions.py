"""Reads `imp[]`: media, floors, deals, native assets, and what makes an impression unusable.

An impression is UNUSABLE (its record holds its id, if it has one, and the flag, and no list has a
row or token of it; the others go on) when

    it is no object, or offers no medium that can be bid on
    its id is missing, no id (see `reading.is_id`), or was seen before in the request
    a size, ratio or duration is below 0, or minduration is over maxduration
    a width or height is over SIDE_MAX
    a floor (bidfloor, durfloors, mincpmpersec) is below 0, over CPM_MICROS_MAX or unreadable
    bidfloorcur is anything but three letters
    qty.multiplier is unreadable, not over 0 or more than MULTIPLIER_MAX
    rqddurs has entries but none over 0

    field               read from, and what it means
    media               banner, video, audio, native: offered when an object stands there (an empty
                        one too); native also needs a request that can be answered
    banner sizes        banner.format[], then banner.w/h unless format has the same. w or h of 0 is
                        unknown: such a size is dropped unless wratio and hratio are over 0.
                        wmin, wmax, hmin, hmax of the banner itself (2.0 to 2.5), 0 being open, are
                        one format where there is no other; beside one they say what is preferred
    protocols           video.protocols, else video.protocol (2.0)
    secure, pmp.private_auction: set by anything but 0, also by what cannot be read
    rewarded            imp.rwdd, else video.ext.rewarded, else ext.prebid.is_rewarded_inventory
    multiplier          imp.qty.multiplier, else device.ext.dooh.impmultiply, else 1
    dt_ms               imp.dt; a value under 10^11 is seconds
    viewability         first metric of type "viewability" with a value in 0..1
    pos                 of banner, else of video
    deals               pmp.deals[] with an id; a deal with an impossible floor, or a currency that
                        is not three letters, is left out, and so is one whose id stood before in
                        the list: two bids of one deal are one too many. Its currency is USD where
                        absent, never the impression's. `wseats` is an old spelling of `wseat`
    masks               numbers past the mask are unknown and ignored; protocols, delivery, expdir
                        of unknown numbers only set bit 0, as 0 would mean "all"
    podid               hashed by token_hash(0, podid)

Tokens of an impression, besides one MEDIA per medium: SIZE "300x250" per banner size and of
video.w/h, and "flex" once where a banner has no size, or a ratio or range instead; POSITION pos
when given, PLACEMENT "plcmt:1", "placement:4", "native:2" when over 0, TAG imp.tagid and
imp.ext.gpid, INTERSTITIAL and REWARDED "0" or "1", KEY_VALUE of imp.ext.data, DEAL each deal id;
blocks DEAL_WSEAT and DEAL_WADOMAIN carry the deal's index.
"""

from typing import Final

from rtb.base import records
from rtb.base.hashing import token_hash
from rtb.base.records import Dim, Flag, ImpFlag, Media, Quirk
from rtb.exchanges.sheet import Row, Sheet, key_values
from rtb.openrtb.native import PROTOCOL_UNKNOWN_MASK, mime_mask, read_native
from rtb.openrtb.reading import IMPOSSIBLE, Json, Object, Reader, ascii_lower, is_id, plain

# Walls of screens have some ten thousand pixels a side; past this a number is no size.
SIDE_MAX: Final = 100_000
MULTIPLIER_MAX: Final = 1_000_000.0  # people in front of one screen
_SECONDS_BELOW: Final = 1e11  # ms since 1970 passed it in 1973; seconds will in the year 5138
_UNKNOWN_MASK: Final = 1  # bit 0 is in no list: "something, but nothing we know"


def read_imps(reader: Reader, sheet: Sheet, imps: list[Json], dooh_ext: Object) -> None:
    """Reads every impression up to the limit of the exchange; `dooh_ext` is device.ext.dooh."""
    if len(imps) > sheet.exchange.imps_max:
        sheet.flags |= Flag.IMPS_OVERFLOW
        reader.note(Quirk.LIST_TRUNCATED)
    seen: set[str] = set()
    usable = 0
    for index, value in enumerate(imps[: sheet.exchange.imps_max]):
        imp = _Imp(reader, sheet, index)
        sheet.imps.append(imp.read(value, seen, dooh_ext))
        usable += not imp.flags & ImpFlag.UNUSABLE
    if not usable:
        sheet.flags |= Flag.UNUSABLE


class _Imp:
    """One impression while it is read; `flags` is ImpFlag."""

    __slots__ = ("_index", "_media", "_reader", "_row", "_sheet", "flags")

    def __init__(self, reader: Reader, sheet: Sheet, index: int) -> None:
        self._reader = reader
        self._sheet = sheet
        self._index = index
        self._media = 0
        self._row: Row = {"multiplier": 1.0, "pos": -1}
        self.flags = 0

    def read(self, value: Json, seen: set[str], dooh_ext: Object) -> Row:
        """The impression's values of `records.IMP`."""
        mark = self._sheet.mark()
        if isinstance(value, dict):
            self._read_identity(value, seen)
            self._read_terms(value, dooh_ext)
            self._read_media(value)
            self._read_placement(value)
            self._read_deals(self._reader.object(value, "pmp"))
        else:
            self._reader.note(Quirk.WRONG_TYPE_IGNORED)
        if not self._media:
            self.flags |= ImpFlag.UNUSABLE
        if self.flags & ImpFlag.UNUSABLE:
            self._sheet.rollback(mark)
            self._row = {key: self._row.get(key, 0) for key in ("id_off", "id_len")}
            self._media = 0
            self.flags = int(ImpFlag.UNUSABLE)
        return self._row | {"flags": self.flags, "media": self._media}

    def _spoil(self) -> None:
        self._reader.note(Quirk.BAD_VALUE_IGNORED)
        self.flags |= ImpFlag.UNUSABLE

    def _set(self, flag: ImpFlag, on: bool) -> None:
        if on:
            self.flags |= flag

    def _read_identity(self, imp: Object, seen: set[str]) -> None:
        raw = self._reader.raw(imp, "id")
        if not is_id(raw):
            self._spoil()
            return
        self._row["id_off"], self._row["id_len"] = self._sheet.slice(raw)
        identity = plain(raw)
        if identity in seen:
            self._reader.note(Quirk.DUPLICATE_IMP_ID)
            self.flags |= ImpFlag.UNUSABLE
        seen.add(identity)

    def _read_terms(self, imp: Object, dooh_ext: Object) -> None:
        reader = self._reader
        self._row |= {
            "floor_micros": self._floor(imp, "bidfloor"),
            "floor_cur": reader.currency(imp, "bidfloorcur"),
            "multiplier": self._multiplier(imp, dooh_ext),
            "dt_ms": self._start_ms(imp),
            "exp_s": reader.count(imp, "exp"),
            "ssai": reader.count(imp, "ssai"),
            "clickbrowser": reader.count(imp, "clickbrowser"),
        }
        if not self._row["floor_cur"]:
            self._spoil()
        self._set(ImpFlag.INTERSTITIAL, reader.flag(imp, "instl"))
        self._set(ImpFlag.SECURE, reader.strict_flag(imp, "secure"))
        for metric in reader.objects(imp, "metric"):
            if ascii_lower(reader.text(metric, "type")) == "viewability" and self._viewability(
                metric
            ):
                break

    def _read_media(self, imp: Object) -> None:
        for key, medium in _MEDIA.items():
            value = imp.get(key)
            if not isinstance(value, dict):
                self._reader.object(imp, key)  # counts the quirk
                continue
            if medium == Media.BANNER:
                self._read_banner(value)
            elif medium == Media.NATIVE:
                if not self._read_native(value):
                    continue
            else:
                self._row[key] = self._read_av(value, medium)
            self._media |= 1 << medium
            self._sheet.target(Dim.MEDIA, key, self._index)

    def _read_banner(self, banner: Object) -> None:
        reader = self._reader
        start, count = self._sheet.add_rows(
            self._sheet.formats, self._banner_formats(banner), records.FORMATS_MAX
        )
        self._target_sizes(self._sheet.formats[start:])
        self._row |= {
            "formats_start": start,
            "formats_count": count,
            "banner_battr": reader.mask(banner, "battr", 64),
            "banner_btype": reader.mask(banner, "btype", 32),
            "banner_api": reader.mask(banner, "api", 32),
            "banner_expdir": reader.mask(banner, "expdir", 32, _UNKNOWN_MASK),
            "banner_mimes": mime_mask(reader, banner),
        }
        self._read_pos(banner)

    def _banner_formats(self, banner: Object) -> list[Row]:
        rows: list[Row] = []
        sizes: set[tuple[int, int]] = set()
        own = {key: banner.get(key) for key in ("w", "h")}
        for size in (*self._reader.objects(banner, "format"), own):
            values = {key: self._side(size, key) for key in ("w", "h", "wmin")}
            values |= {key: self._size(size, key) for key in ("wratio", "hratio")}
            w, h = values["w"], values["h"]
            is_flex = values["wratio"] > 0 and values["hratio"] > 0
            if size is own and ((w, h) in sizes or not (w or h)):
                continue
            if not (w and h) and not is_flex:
                self._reader.note(Quirk.BAD_VALUE_IGNORED)
                continue
            sizes.add((w, h))
            rows.append(dict(values))
        return rows or self._banner_range(banner)

    def _banner_range(self, banner: Object) -> list[Row]:
        values = {key: self._side(banner, key) for key in ("wmin", "wmax", "hmin", "hmax")}
        if 0 < values["wmax"] < values["wmin"] or 0 < values["hmax"] < values["hmin"]:
            self._reader.note(Quirk.BAD_VALUE_IGNORED)
            return []
        return [{"w": 0, "h": 0, **values}] if any(values.values()) else []

    def _target_sizes(self, formats: list[Row]) -> None:
        """Tokens of the formats that were kept: their number is bounded as that of the rows."""
        for row in formats:
            if row["w"] and row["h"]:
                self._sheet.target(Dim.SIZE, f"{row['w']}x{row['h']}", self._index)
        if not formats or not all(row["w"] and row["h"] for row in formats):
            self._sheet.target(Dim.SIZE, "flex", self._index)

    def _read_native(self, native: Object) -> bool:
        request = read_native(self._reader, native)
        if request is None:
            return False
        rows: list[Row] = [dict(asset) for asset in request.assets]
        start, count = self._sheet.add_rows(self._sheet.assets, rows, records.ASSETS_MAX)
        if count < len(rows):  # a required asset might be among the missing
            del self._sheet.assets[start:]
            return False
        self._row |= {
            "native_ver": request.version,
            "native_events": request.events,
            "native_plcmttype": request.plcmttype,
            "native_api": self._reader.mask(native, "api", 32),
            "native_battr": self._reader.mask(native, "battr", 64),
            "assets_start": start,
            "assets_count": count,
        }
        self._set(ImpFlag.NATIVE_WRAPPED, request.wrapped)
        self._set(ImpFlag.NATIVE_PRIVACY, request.privacy)
        if request.plcmttype:
            self._sheet.target(Dim.PLACEMENT, f"native:{request.plcmttype}", self._index)
        return True

    def _read_av(self, av: Object, medium: Media) -> Row:
        reader = self._reader
        old = ((av, "protocol"),) if medium == Media.VIDEO else ()
        owner, protocols = reader.home(av, "protocols", *old)
        row: Row = {key: reader.integer(av, name) for key, name in _AV_SIGNED.items()}
        row |= {key: reader.count(av, name) for key, name in _AV_COUNTS.items()}
        row |= {
            "offered": 1,
            "mimes": mime_mask(reader, av),
            "battr": reader.mask(av, "battr", 64),
            "api": reader.mask(av, "api", 32),
            "protocols": reader.mask(owner, protocols, 32, PROTOCOL_UNKNOWN_MASK),
            "playbackmethod": reader.mask(av, "playbackmethod", 32),
            "delivery": reader.mask(av, "delivery", 32, _UNKNOWN_MASK),
            "podid": self._podid(av),
            "mincpmpersec_micros": self._floor(av, "mincpmpersec"),
            "skip": -1,
        }
        row |= self._durations(av)
        row["durfloors_start"], row["durfloors_count"] = self._durfloors(av)
        if medium == Media.VIDEO:
            self._read_video(av, row)
        return row

    def _read_video(self, video: Object, row: Row) -> None:
        reader = self._reader
        w, h = self._side(video, "w"), self._side(video, "h")
        skip = reader.integer(video, "skip", -1)
        plcmt, placement = reader.count(video, "plcmt"), reader.count(video, "placement")
        row |= {
            "w": w,
            "h": h,
            "plcmt": plcmt,
            "linearity": min(reader.count(video, "linearity"), 255),
            "skip": skip if skip in (0, 1) else -1,
            "boxing": int(reader.integer(video, "boxingallowed", 1) != 0),
            "poddedupe": reader.mask(video, "poddedupe", 32),
        }
        if w and h:
            self._sheet.target(Dim.SIZE, f"{w}x{h}", self._index)
        if plcmt:
            self._sheet.target(Dim.PLACEMENT, f"plcmt:{plcmt}", self._index)
        if placement:
            self._sheet.target(Dim.PLACEMENT, f"placement:{placement}", self._index)
        self._read_pos(video)

    def _read_pos(self, medium: Object) -> None:
        pos = self._reader.count(medium, "pos", -1)
        if pos >= 0 and self._row["pos"] == -1:
            self._row["pos"] = pos
            self._sheet.target(Dim.POSITION, str(pos), self._index)

    def _durations(self, av: Object) -> Row:
        least, most = self._size(av, "minduration"), self._size(av, "maxduration")
        listed = self._reader.items(av, "rqddurs")
        exact = [second for item in listed if (second := self._reader.integer_of(item)) > 0]
        if (most and least > most) or (listed and not exact):
            self._spoil()
        if len(exact) > records.RQDDURS_MAX:
            self._reader.note(Quirk.LIST_TRUNCATED)
        return {
            "minduration_s": least,
            "maxduration_s": most,
            "rqddurs_s": exact[: records.RQDDURS_MAX],
        }

    def _durfloors(self, owner: Object) -> tuple[int, int]:
        rows: list[Row] = [
            {
                "floor_micros": self._floor(item, "bidfloor"),
                "mindur_s": self._size(item, "mindur"),
                "maxdur_s": self._size(item, "maxdur"),
            }
            for item in self._reader.objects(owner, "durfloors")
        ]
        if len(self._sheet.durfloors) + len(rows) > records.DURFLOORS_MAX:
            self._spoil()  # a floor that we did not keep is a floor ignored
        return self._sheet.add_rows(self._sheet.durfloors, rows, records.DURFLOORS_MAX)

    def _read_placement(self, imp: Object) -> None:
        reader, sheet = self._reader, self._sheet
        ext = reader.object(imp, "ext")
        video_ext = reader.object(reader.object(imp, "video"), "ext")
        owner, key = reader.home(
            imp,
            "rwdd",
            (video_ext, "rewarded"),
            (reader.object(ext, "prebid"), "is_rewarded_inventory"),
        )
        self._set(ImpFlag.REWARDED, reader.flag(owner, key))
        for dim, flag in (
            (Dim.INTERSTITIAL, ImpFlag.INTERSTITIAL),
            (Dim.REWARDED, ImpFlag.REWARDED),
        ):
            sheet.target(dim, "1" if self.flags & flag else "0", self._index)
        sheet.target(Dim.TAG, reader.text(imp, "tagid"), self._index)
        sheet.target(Dim.TAG, reader.text(ext, "gpid"), self._index)
        key_values(reader, sheet, ext, self._index)

    def _read_deals(self, pmp: Object) -> None:
        private = self._reader.strict_flag(pmp, "private_auction")
        self._set(ImpFlag.PRIVATE_AUCTION, private)
        start = len(self._sheet.deals)
        spoiled = self.flags & ImpFlag.UNUSABLE
        seen: set[str] = set()
        for deal in self._reader.objects(pmp, "deals"):
            mark = self._sheet.mark()
            if len(self._sheet.deals) >= self._sheet.exchange.deals_max:
                self._sheet.flags |= Flag.DEALS_OVERFLOW
                self._reader.note(Quirk.LIST_TRUNCATED)
                break
            self.flags &= ~ImpFlag.UNUSABLE
            self._read_deal(deal, seen)
            if self.flags & ImpFlag.UNUSABLE:
                self._sheet.rollback(mark)
        self.flags = self.flags & ~ImpFlag.UNUSABLE | spoiled
        self._row["deals_start"] = start
        self._row["deals_count"] = len(self._sheet.deals) - start

    def _read_deal(self, deal: Object, seen: set[str]) -> None:
        reader, sheet = self._reader, self._sheet
        raw = reader.raw(deal, "id")
        currency = reader.currency(deal, "bidfloorcur")
        if not is_id(raw) or not currency:
            self._spoil()
            return
        identity = plain(raw)
        if identity in seen:
            self._spoil()
            return
        seen.add(identity)
        index = len(sheet.deals)
        off, length = sheet.slice(raw)
        durfloors_start, durfloors_count = self._durfloors(deal)
        row: Row = {
            "hash": token_hash(Dim.DEAL, identity.encode()),
            "floor_micros": self._floor(deal, "bidfloor"),
            "mincpmpersec_micros": self._floor(deal, "mincpmpersec"),
            "id_off": off,
            "id_len": length,
            "floor_cur": currency,
            "durfloors_start": durfloors_start,
            "durfloors_count": durfloors_count,
            "imp": self._index,
            "at": min(reader.count(deal, "at"), 255),
            "guaranteed": int(reader.flag(deal, "guar")),
            "has_wseat": self._deal_list(deal, "wseat", Dim.DEAL_WSEAT, index),
            "has_wadomain": self._deal_list(deal, "wadomain", Dim.DEAL_WADOMAIN, index),
        }
        sheet.target(Dim.DEAL, identity, self._index)
        sheet.deals.append(row)

    def _deal_list(self, deal: Object, key: str, dim: Dim, index: int) -> int:
        olds = ((deal, "wseats"),) if key == "wseat" else ()
        owner, key = self._reader.home(deal, key, *olds)
        for text in self._reader.texts(owner, key):
            if dim == Dim.DEAL_WADOMAIN:
                self._sheet.block_host(dim, text, index)
            elif text:
                self._sheet.block(dim, text, index)
        # A list of entries that we cannot read still allows nobody else.
        return int(bool(self._reader.items(owner, key)))

    def _floor(self, owner: Object, key: str) -> int:
        micros = self._reader.micros(owner, key)
        if micros == IMPOSSIBLE:
            self._spoil()
            return 0
        return micros

    def _side(self, owner: Object, key: str) -> int:
        value = self._size(owner, key)
        if value > SIDE_MAX:
            self._spoil()
        return value

    def _size(self, owner: Object, key: str) -> int:
        value = self._reader.integer(owner, key)
        if value < 0:
            self._spoil()
        return value

    def _multiplier(self, imp: Object, dooh_ext: Object) -> float:
        qty = self._reader.object(imp, "qty")
        owner, key = self._reader.home(qty, "multiplier", (dooh_ext, "impmultiply"))
        if not self._reader.has(owner, key):
            return 1.0
        value = self._reader.real(owner, key)
        if value is None or not 0 < value <= MULTIPLIER_MAX:
            self._spoil()
            return 1.0
        return value

    def _start_ms(self, imp: Object) -> float:
        value = self._reader.real(imp, "dt") or 0.0
        if value < 0:
            self._reader.note(Quirk.BAD_VALUE_IGNORED)
            return 0.0
        if 0 < value < _SECONDS_BELOW:
            self._reader.note(Quirk.OTHER_NOTATION)
            return value * 1000
        return value

    def _viewability(self, metric: Object) -> bool:
        value = self._reader.real(metric, "value")
        if value is None or not 0 <= value <= 1:
            self._reader.note(Quirk.BAD_VALUE_IGNORED)
            return False
        self._row["viewability"] = value
        self.flags |= ImpFlag.HAS_VIEWABILITY
        return True

    def _podid(self, av: Object) -> int:
        text = self._reader.text(av, "podid")
        return token_hash(0, text.encode()) if text else 0


_MEDIA: Final = {
    "banner": Media.BANNER,
    "video": Media.VIDEO,
    "audio": Media.AUDIO,
    "native": Media.NATIVE,
}
_AV_SIGNED: Final = {
    "startdelay_s": "startdelay",
    "maxextended_s": "maxextended",
    "podseq": "podseq",
    "slotinpod": "slotinpod",
}
_AV_COUNTS: Final = {
    "skipmin_s": "skipmin",
    "skipafter_s": "skipafter",
    "minbitrate_kbps": "minbitrate",
    "maxbitrate_kbps": "maxbitrate",
    "poddur_s": "poddur",
    "maxseq": "maxseq",
}
