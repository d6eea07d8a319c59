"""How numbers become charts, tables and pictures of programs, whatever they say."""
