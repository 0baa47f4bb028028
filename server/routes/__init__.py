"""The routes of the API, one file per noun; what they answer is in server.schemas."""
