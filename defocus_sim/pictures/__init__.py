"""Pictures and tables for people: contact sheets of stores, what a lens does."""
