"""What travels over HTTP: the bodies of requests and replies, and SQLite's values in JSON.

Server and client share these structs.
"""
