"""Pictures for public benchmarks, their scores, and reports (see `docs/evaluation.md`)."""
