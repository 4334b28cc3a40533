"""A gRPC server of two methods, without generated code: messages are text."""

import sys
import time
from concurrent import futures

import grpc


def hello(name, context):
    if not name:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the name is empty")
    forwarded = dict(context.invocation_metadata())
    return f"hello {name}, you came by {forwarded.get('x-forwarded-host', 'no gateway')}"


def count(last, context):
    for number in range(1, int(last) + 1):
        yield f"{number}"
        time.sleep(0.2)


def text(message):
    return message.decode()


methods = {
    "Hello": grpc.unary_unary_rpc_method_handler(hello, text, str.encode),
    "Count": grpc.unary_stream_rpc_method_handler(count, text, str.encode),
}
server = grpc.server(futures.ThreadPoolExecutor(16))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("example.Greeter", methods)])
# Port 0 is a free one.
print(server.add_insecure_port(f"127.0.0.1:{sys.argv[1] if sys.argv[1:] else 50051}"), flush=True)
server.start()
server.wait_for_termination()
