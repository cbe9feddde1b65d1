"""JSON under /api/v1: parse, call one verb, answer with a pydantic model."""
