"""The parts of a report, each with its blocks and its numbers."""
