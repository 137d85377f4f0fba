"""Experiments are data: a frozen configuration in, a record out; figures and tables are pure functions of records."""
