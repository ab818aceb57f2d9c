"""How files of pictures and depth lie and are listed in the world; import from the modules."""
