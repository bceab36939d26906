"""What the supervisor knows of its children, without starting any."""

from rtb.server.supervise import Child


def test_nobody_is_silent_because_the_clock_was_set() -> None:
    """A child is as silent as it has said nothing new, however far its own clock is off."""
    child = Child(0)
    start_ms = 1_790_000_000_000
    assert 0 == child.silent_ms(start_ms, 10.0)
    assert 500 == child.silent_ms(start_ms, 10.5)
    for off_ms in (300_000, -300_000, 0):
        assert 0 == child.silent_ms(start_ms + 600 + off_ms, 11.0)
        assert 250 == child.silent_ms(start_ms + 600 + off_ms, 11.25)
