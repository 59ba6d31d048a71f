"""Notifications and decisions from chats, against stand-ins of the services on real sockets."""
