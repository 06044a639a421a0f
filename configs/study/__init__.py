"""Studies: several runs, scored and compared by one command."""
