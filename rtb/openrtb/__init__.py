"""The wire: OpenRTB 2.0 to 2.6 types, native, lists. No I/O."""
