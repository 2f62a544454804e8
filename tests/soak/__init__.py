"""Long trials; each module is one."""
