"""Floor 3: HTTP. The only floor that knows a status code, a header or a route."""
