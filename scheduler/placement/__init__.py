"""Placement: which host each instance gets, and which pinned lease. Pure: no database, no bus, no clock."""
