"""One page that shows runs: as a file that opens offline, and live from a server."""
