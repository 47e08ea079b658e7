"""Private servers for the functional tests: own ports, own data below a temporary folder."""
