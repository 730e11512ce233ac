"""A chatbot with personalities, whose turns are runs, and which is a step of another workflow as well."""
