"""Modelport: one API to deploy models on any platform, one OpenAI endpoint to call them."""
