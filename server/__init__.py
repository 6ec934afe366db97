"""The HTTP server: settings, gate, edge, routes. Nothing imports it but `dosql serve`."""
