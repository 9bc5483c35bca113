"""What goes over HTTP, as the OpenAPI document describes it."""
