"""The lens of a photograph: from EXIF, from the user, assumed; import from the modules."""
