"""The host: wakes objects, runs them, and lets them sleep; knows their names."""
