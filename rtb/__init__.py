"""rtb: an OpenRTB bidder with budgets that hold and a reason for every decision."""

__version__ = "0.1.0"
