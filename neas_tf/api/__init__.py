"""One call from data to a model: what `neas.search` and `neas search` do."""
