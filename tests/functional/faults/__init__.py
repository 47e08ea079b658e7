"""The fault matrix on real processes: services, broker, database and messages."""
