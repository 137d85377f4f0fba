"""Controller and learners of a run whose learners live in other processes: compiled functions, codecs and bookkeeping; no engine."""
