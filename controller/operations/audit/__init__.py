"""The auditor: what DESIGN.md promises, checked on a live cloud; a file for each kind of row."""
