"""The vocabulary: money, ids, clocks, reasons, errors and the records that cross packages."""
