"""The paper's studies as units of work that many sittings and machines share (paper section 4.2)."""
