"""A nightly batch: the files of a day, four at a time, and what becomes of the others when one of them is broken."""
