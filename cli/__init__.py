"""The commands `dfd-prepare`, `dfd-train` and `dfd-eval`: parse, call one library function, print."""
