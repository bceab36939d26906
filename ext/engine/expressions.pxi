# The part of a boolean targeting expression that the index cannot hold: a postfix program.


cdef bint _fits(Engine self, const LineItem *row, const Imp *imp, int number) noexcept nogil:
    cdef uint8_t stack[256]
    cdef int top = 0, i, k, from_
    cdef uint8_t result
    cdef const Op *op
    for i in range(row.program_start, row.program_start + row.program_count):
        op = &self.programs[i]
        if op.op == SNAP_OP_IN:
            result = _seen(self, op, number)
        elif op.op == SNAP_OP_ALL or op.op == SNAP_OP_ANY:
            from_ = top - op.count
            if from_ < 0:
                return False
            result = op.op == SNAP_OP_ALL
            for k in range(from_, top):
                if op.op == SNAP_OP_ALL:
                    result &= stack[k]
                else:
                    result |= stack[k]
            top = from_
        elif op.op == SNAP_OP_NOT:
            if top == 0:
                return False
            top -= 1
            result = not stack[top]
        elif op.op == SNAP_OP_CONST:
            result = op.count != 0
        else:
            result = _compare(self, op, imp)
        if top >= 256:
            return False
        stack[top] = result
        top += 1
    return stack[top - 1] if top else True


cdef bint _seen(Engine self, const Op *op, int number) noexcept nogil:
    """Whether the request, or this impression, carries one of the op's tokens."""
    cdef const Token *token
    cdef int i
    cdef const uint64_t *wanted = self.program_hashes + op.start
    if op.dim == DIM_EXCHANGE:
        return _contains(wanted, op.count, self.terms.exchange)
    if op.dim == DIM_HOUR_OF_WEEK:
        return _contains(wanted, op.count, self.hour_token)
    if op.dim == DIM_AUDIENCE:
        for i in range(self.person.segments_count):
            if _contains(wanted, op.count, self.person.segments[i]):
                return True
        return False
    i = self.first_token[op.dim & 63]
    while i >= 0:
        token = &self.facts.tokens[i]
        if (token.imp < 0 or token.imp == number) and (
            _contains(wanted, op.count, token.hash_)
        ):
            return True
        i = self.next_token[i]
    return False


cdef bint _compare(Engine self, const Op *op, const Imp *imp) noexcept nogil:
    cdef const double *params = self.program_numbers + op.start
    cdef const Head *head = &self.facts.head
    cdef double number
    cdef int i
    if op.op == SNAP_OP_WITHIN_KM:
        if not head.flags & FLAG_HAS_GEO or self.is_private:
            return False
        i = 1
        while i + 1 < op.count:
            # Nobody is nearer than the difference of latitudes; most points end here.
            if fabs(head.lat - params[i]) * KM_PER_DEGREE <= params[0] + 1e-6 and (
                _distance_km(head.lat, head.lon, params[i], params[i + 1]) <= params[0]
            ):
                return True
            i += 2
        return False
    if op.dim == DIM_OS_VERSION:
        if head.os_version <= 0:
            return False
        number = <double>head.os_version
    elif op.dim == DIM_VIEWABILITY:
        if not imp.flags & IMP_HAS_VIEWABILITY:
            return False
        number = imp.viewability
    else:
        return False
    return number >= params[0] if op.op == SNAP_OP_AT_LEAST else number <= params[0]
