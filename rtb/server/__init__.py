"""The data plane: sockets in, answers out."""
