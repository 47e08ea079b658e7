"""The auditor: what Pileus promises (docs/audit.md), checked on a live cloud; a file for each kind of row."""
