"""Notices: URLs that say, signed, which bid they are about; pure functions over bytes."""
