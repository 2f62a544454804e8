"""The paper's studies as units of work that many sessions and machines share (paper section 4.2)."""
