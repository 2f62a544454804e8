"""Measured latency: probes, timing, and the table made of them."""
