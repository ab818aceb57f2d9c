"""The commands `dfd-prepare`, `dfd-train`, `dfd-eval` and `dfd-predict`: parse, call one library function, print."""

from dfd_cli.starting import end_in_one_line, keep_standard_streams

# Before all that takes time to import.
end_in_one_line()
keep_standard_streams()
