"""The command `cas`: parse, call, render; one file per command."""
