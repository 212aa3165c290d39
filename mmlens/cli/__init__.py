"""The command line `mmlens`: one file per command that has options of its own."""
