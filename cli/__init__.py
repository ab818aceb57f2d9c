"""The commands `dfd-prepare`, `dfd-train`, `dfd-eval` and `dfd-predict`: parse, call one library function, print."""
