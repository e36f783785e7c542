"""The formats that results are written in, one idea a file."""
