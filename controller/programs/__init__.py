"""Programs and kernel interfaces of a machine that agent, network service and commands share: a module for each."""
