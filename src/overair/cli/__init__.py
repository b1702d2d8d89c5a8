"""The command line: arguments in, words or JSON out. It decides nothing."""
