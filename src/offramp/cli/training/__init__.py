"""Training from the command line: how it is asked for, one study, several, and one that is to fit."""
