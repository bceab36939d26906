# The rules of a creative: what the impression takes, the exchange's blocks, what the person bought.


cdef inline bint _is_transparent(Engine self, const Creative *ad) noexcept nogil:
    """Whether somebody says who is behind the ad, and just one of publisher and ad shows it."""
    if self.facts.head.pubrender == PUBLISHER_SHOWS_NOTHING:
        return ad.dsa == AD_SHOWS_IT
    return ad.dsa and not (
        self.facts.head.pubrender == PUBLISHER_SHOWS_IT and ad.dsa == AD_SHOWS_IT
    )


cdef int _reject_creative(Engine self, const Creative *ad, const Imp *imp) noexcept nogil:
    cdef int reason
    if _is_capped(self, ad.caps_start, ad.caps_count):
        return REJECT_FREQUENCY_CAP
    if not imp.media >> ad.media & 1:
        return REJECT_MEDIA
    if ad.statuses_count and _contains(
        self.creative_statuses + ad.statuses_start, ad.statuses_count, self.terms.exchange
    ):
        return REJECT_EXCHANGE_STATUS
    if self.facts.head.dsarequired >= DSA_REQUIRED and not _is_transparent(self, ad):
        return REJECT_TRANSPARENCY
    if imp.flags & IMP_SECURE and not ad.secure:
        return REJECT_SECURE
    if ad.media == MEDIA_BANNER:
        reason = _reject_banner(self, ad, imp)
    elif ad.media == MEDIA_NATIVE:
        reason = _reject_native(self, ad, imp)
    elif ad.media == MEDIA_VIDEO:
        reason = _reject_av(self, ad, &imp.video)
    else:
        reason = _reject_av(self, ad, &imp.audio)
    if reason:
        return reason
    return _reject_blocked(self, ad)


cdef bint _format(
    Engine self, const Creative *ad, const Imp *imp, int32_t *w, int32_t *h
) noexcept nogil:
    """The size that a banner would be shown in; False when it fits no format."""
    cdef const Format *form
    cdef int i
    cdef bint responsive = ad.w == 0
    w[0] = ad.w
    h[0] = ad.h
    for i in range(imp.formats_start, imp.formats_start + imp.formats_count):
        form = &self.facts.formats[i]
        if form.w > 0:
            if responsive:
                w[0] = form.w
                h[0] = form.h
                return True
            if ad.w == form.w and ad.h == form.h:
                return True
        elif form.wratio > 0:
            if responsive:
                if form.wmin > 0:
                    w[0] = form.wmin
                    h[0] = <int32_t>(<int64_t>form.wmin * form.hratio // form.wratio)
                    return True
            elif (
                <int64_t>ad.w * form.hratio == <int64_t>ad.h * form.wratio
                and ad.w >= form.wmin
            ):
                return True
        elif responsive:
            if (form.wmax or form.wmin) and (form.hmax or form.hmin):
                w[0] = form.wmax or form.wmin
                h[0] = form.hmax or form.hmin
                return True
        elif (
            ad.w >= form.wmin and (not form.wmax or ad.w <= form.wmax)
            and ad.h >= form.hmin and (not form.hmax or ad.h <= form.hmax)
        ):
            return True
    return False


cdef int _reject_banner(Engine self, const Creative *ad, const Imp *imp) noexcept nogil:
    cdef int32_t w, h
    if not _format(self, ad, imp, &w, &h):
        return REJECT_SIZE
    if imp.banner_btype >> ad.btype & 1:
        return REJECT_CREATIVE_TYPE
    if ad.attr & imp.banner_battr:
        return REJECT_CREATIVE_ATTRIBUTE
    if imp.banner_mimes and not ad.mime & imp.banner_mimes:
        return REJECT_MIME
    if ad.api & ~imp.banner_api:
        return REJECT_API
    if imp.banner_expdir and <uint32_t>ad.expand & ~imp.banner_expdir:
        return REJECT_EXPANDABLE
    return REJECT_NONE


cdef bint _duration_fits(Engine self, int creative_s, const Av *av) noexcept nogil:
    cdef int i
    cdef bint listed = False
    if av.poddur_s and creative_s > av.poddur_s:
        return False
    for i in range(RQDDURS_MAX):
        if av.rqddurs_s[i]:
            listed = True
            if av.rqddurs_s[i] == creative_s:
                return True
    if listed:
        return False
    return creative_s >= av.minduration_s and (
        av.maxduration_s == 0 or creative_s <= av.maxduration_s
    )


cdef int _reject_av(Engine self, const Creative *ad, const Av *av) noexcept nogil:
    if ad.attr & av.battr:
        return REJECT_CREATIVE_ATTRIBUTE
    if av.skip == 1 and ad.attr >> 16 & 1:
        return REJECT_CREATIVE_ATTRIBUTE
    if av.mimes and not ad.mime & av.mimes:
        return REJECT_MIME
    if ad.api & ~av.api:
        return REJECT_API
    if av.protocols and not av.protocols >> ad.protocol & 1:
        return REJECT_PROTOCOL
    if not _duration_fits(self, ad.dur_s, av):
        return REJECT_DURATION
    if av.linearity and ad.linearity and av.linearity != ad.linearity:
        return REJECT_LINEARITY
    if av.skip == 0 and ad.skip_s >= 0:
        return REJECT_SKIP
    return _reject_renditions(self, ad, av)


cdef int _reject_renditions(Engine self, const Creative *ad, const Av *av) noexcept nogil:
    """REJECT_NONE when one rendition fits in all respects, else why the one that came furthest does
    not.
    """
    cdef int i, passed, furthest = 0
    for i in range(ad.renditions_start, ad.renditions_start + ad.renditions_count):
        passed = _rendition_passes(self, &self.renditions[i], av)
        if passed == 4:
            return REJECT_NONE
        furthest = max(furthest, passed)
    if furthest == 0:
        return REJECT_MIME
    if furthest == 1:
        return REJECT_BITRATE
    return REJECT_DELIVERY if furthest == 2 else REJECT_SIZE


cdef int _rendition_passes(Engine self, const Rendition *file, const Av *av) noexcept nogil:
    """How many of the four rules of a rendition are met, up to the first that is not."""
    cdef int64_t ours, theirs
    if av.mimes and not file.mime & av.mimes:
        return 0
    if file.bitrate_kbps and (
        file.bitrate_kbps < av.minbitrate_kbps
        or (av.maxbitrate_kbps and file.bitrate_kbps > av.maxbitrate_kbps)
    ):
        return 1
    if av.delivery and file.delivery and not av.delivery & file.delivery:
        return 2
    if not av.boxing and av.w and av.h and file.w and file.h:
        ours = <int64_t>file.w * av.h
        theirs = <int64_t>file.h * av.w
        if (ours - theirs if ours > theirs else theirs - ours) * BOXING_PART > theirs:
            return 3
    return 4


cdef int _reject_native(Engine self, const Creative *ad, const Imp *imp) noexcept nogil:
    cdef int i, j
    cdef bint fits
    if ad.attr & imp.native_battr:
        return REJECT_CREATIVE_ATTRIBUTE
    if ad.api & ~imp.native_api:
        return REJECT_API
    if self.assets_clash:
        return REJECT_NATIVE_ASSET
    for i in range(imp.assets_start, imp.assets_start + imp.assets_count):
        if not self.facts.assets[i].required:
            continue
        fits = False
        for j in range(ad.assets_start, ad.assets_start + ad.assets_count):
            if _asset_fits(self, &self.facts.assets[i], &self.ad_assets[j]):
                fits = True
                break
        if not fits:
            return REJECT_NATIVE_ASSET
    return REJECT_NONE


cdef bint _assets_clash(Engine self, const Imp *imp) noexcept nogil:
    """Whether a required asset has the id of another one, which the answer then has."""
    cdef const Asset *asked
    cdef int i
    for i in range(imp.assets_start, imp.assets_start + imp.assets_count):
        asked = &self.facts.assets[i]
        if asked.required and not _asks_the_same(
            asked, &self.facts.assets[_first_of_id(self.facts, imp, i)]
        ):
            return True
    return False


cdef bint _asset_fits(Engine self, const Asset *asked, const AdAsset *ours) noexcept nogil:
    cdef int wanted
    if asked.kind != ours.kind:
        return False
    if asked.kind == 1:
        return asked.len_ == 0 or ours.chars <= asked.len_
    if asked.kind == 4:
        return asked.type == ours.type and (asked.len_ == 0 or ours.chars <= asked.len_)
    if asked.kind == 2:
        wanted = asked.type if asked.type else 3
        return (
            wanted == ours.type
            and (ours.w >= asked.wmin if asked.wmin else (asked.w == 0 or ours.w == asked.w))
            and (ours.h >= asked.hmin if asked.hmin else (asked.h == 0 or ours.h == asked.h))
            and (asked.mimes == 0 or (asked.mimes & ours.mime) != 0)
        )
    return (
        ours.dur_s >= asked.minduration_s
        and (asked.maxduration_s == 0 or ours.dur_s <= asked.maxduration_s)
        and (asked.protocols == 0 or (asked.protocols >> ours.protocol & 1) != 0)
        and (asked.mimes == 0 or (asked.mimes & ours.mime) != 0)
    )


cdef int _reject_blocked(Engine self, const Creative *ad) noexcept nogil:
    cdef int i
    if self.wlang_present and ad.language and not _contains(
        self.wlang, self.wlang_count, ad.language
    ):
        return REJECT_LANGUAGE
    # Lists that meet nothing of ours, the usual case, cost no look at the creative's.
    for i in range(ad.categories_start, ad.categories_start + (
        ad.categories_count if self.bcat_met else 0
    )):
        if self.category_stamp[self.creative_categories[i]] == self.stamp:
            return REJECT_BLOCKED_CATEGORY
    if self.acat_present and not _is_allowed(self, ad):
        return REJECT_NOT_ALLOWED_CATEGORY
    for i in range(ad.domains_start, ad.domains_start + (
        ad.domains_count if self.badv_met else 0
    )):
        if self.domain_stamp[self.creative_domains[i]] == self.stamp:
            return REJECT_BLOCKED_ADVERTISER
    if self.bapp_count and ad.bundle and _contains(self.bapp, self.bapp_count, ad.bundle):
        return REJECT_BLOCKED_APP
    return REJECT_NONE


cdef bint _is_allowed(Engine self, const Creative *ad) noexcept nogil:
    """Whether `acat` has every category that a creative has in its taxonomy, and it has one."""
    cdef const Code *code
    cdef bint known = False
    cdef int i
    for i in range(ad.codes_start, ad.codes_start + ad.codes_count):
        code = &self.creative_codes[i]
        if code.taxonomy != self.facts.head.cattax:
            continue
        known = True
        if self.allowed_stamp[code.ordinal] != self.stamp and (
            code.parent < 0 or self.allowed_stamp[code.parent] != self.stamp
        ):
            return False
    return known


cdef inline bint _is_capped(Engine self, int start, int count) noexcept nogil:
    """Whether the person has seen as much as one of these caps allows, or may have."""
    if self.person.uncounted:
        return count > 0
    return self.person.caps_count > 0 and _has_seen(self, start, count)


cdef bint _has_seen(Engine self, int start, int count) noexcept nogil:
    cdef int i
    cdef const Cap *cap
    cdef const ProfileEntry *seen
    for i in range(start, start + count):
        cap = &self.caps[i]
        if not self._may_have(cap.hash_):
            continue
        seen = _find(self.person.caps, self.person.caps_count, cap.hash_)
        if seen == NULL or <int64_t>seen.value < cap.count:
            continue
        if cap.window_s == 0 or self.now_ms < (<int64_t>seen.time_s + cap.window_s) * 1000:
            return True
    return False


cdef int _reject_history(Engine self, const LineItem *row, const Creative *ad) noexcept nogil:
    cdef const Product *product
    cdef const ProfileEntry *bought
    cdef int i
    if ad.product < 0:
        return REJECT_NONE
    if not ad.available:
        return REJECT_OUT_OF_STOCK
    if self.person.items_count and self._may_have(ad.item):
        bought = _find(self.person.items, self.person.items_count, ad.item)
        if bought != NULL and (
            self.now_ms < (<int64_t>bought.time_s + row.item_window_s) * 1000
        ):
            return REJECT_PURCHASED_ITEM
    if row.category_window_s and self.person.categories_count:
        product = &self.products[ad.product]
        for i in range(
            product.categories_start, product.categories_start + product.categories_count
        ):
            if not self._may_have(self.product_categories[i]):
                continue
            bought = _find(
                self.person.categories, self.person.categories_count,
                self.product_categories[i],
            )
            if bought != NULL and (
                self.now_ms < (<int64_t>bought.time_s + row.category_window_s) * 1000
            ):
                return REJECT_PURCHASED_CATEGORY
    return REJECT_NONE


cdef void _open_to(
    Engine self, const Imp *imp, const LineItem *row, const Seat *seat, const Creative *ad,
    const int16_t *offered, int offered_count
) noexcept nogil:
    """Appends the competitions that this creative may enter: deal numbers, -1 = open market."""
    cdef int i, reason
    self.last_deal_reason = REJECT_DEAL_ONLY
    for i in range(offered_count):
        reason = _reject_deal(self, offered[i], seat, ad)
        if reason:
            self.last_deal_reason = reason
        else:
            self.places[self.places_count] = offered[i]
            self.places_count += 1
    if row.flags & SNAP_OPEN_MARKET and not imp.flags & IMP_PRIVATE_AUCTION:
        self.places[self.places_count] = -1
        self.places_count += 1


cdef int _reject_deal(Engine self, int number, const Seat *seat, const Creative *ad) noexcept nogil:
    cdef const Deal *deal = &self.facts.deals[number]
    cdef const Token *token
    cdef int i, j, value
    cdef bint allowed
    cdef uint64_t seat_hash
    if deal.has_wseat:
        seat_hash = self.terms.seat_dw if seat == NULL else seat.hash_dw
        allowed = False
        for i in range(self.facts.head.tokens_count):
            token = &self.facts.tokens[i]
            if (
                token.dim == DIM_DEAL_WSEAT and token.imp == number
                and token.hash_ == seat_hash
            ):
                allowed = True
                break
        if not allowed:
            return REJECT_DEAL_SEAT
    if deal.has_wadomain:
        for i in range(self.facts.head.tokens_count):
            token = &self.facts.tokens[i]
            if token.dim != DIM_DEAL_WADOMAIN or token.imp != number:
                continue
            value = _value(self, token.hash_)
            if value < 0:
                continue
            for j in range(ad.domains_start, ad.domains_start + ad.domains_count):
                if self.creative_domains[j] == self.values[value].ordinal:
                    return REJECT_NONE
        return REJECT_DEAL_ADVERTISER
    return REJECT_NONE
