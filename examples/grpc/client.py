"""Calls the server through the gateway: client.py HOST:PORT"""

import sys

import grpc

# The name by which the gateway routes. A client that connects to grpc.localhost:4000 itself needs no option.
AUTHORITY = "grpc.localhost"


def method(kind, name, authority=AUTHORITY):
    channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.default_authority", authority)])
    return getattr(channel, kind)(f"/example.Greeter/{name}", str.encode, bytes.decode)


def failure(call, *args, **options):
    try:
        return call(*args, **options)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"


hello = method("unary_unary", "Hello")
print("a call:    ", hello("world"))
print("a stream:  ", *method("unary_stream", "Count")("5"))
print("an error:  ", failure(hello, ""))
print("a deadline:", failure(lambda: list(method("unary_stream", "Count")("100", timeout=0.5))))
print("no service:", failure(method("unary_unary", "Hello", "nobody.localhost"), "world"))
