"""An HTTP server for a trained model, with the endpoints of OpenAI's API (docs/serving.md)."""
