"""The whole cloud in one thread, on a virtual clock, with faults drawn from a seed: see docs/simulation.md."""
