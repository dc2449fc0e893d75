"""A gRPC server, and a client that counts its calls: `grpc_shop.py serve PORT`, `grpc_shop.py ask PORT CALLS`.

The client prints one line of JSON: how many calls of each method ended with each status.
"""

import json
import sys
from collections import Counter
from concurrent import futures

import grpc

SERVICE = "shop.Cart"


def add(request, context):
    return b"sum " + request


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


def items(request, context):
    for number in range(10):
        yield b"item %d" % number


def total(requests, context):
    return b"%d" % sum(1 for _ in requests)


def serve(port):
    handlers = {
        "Add": grpc.unary_unary_rpc_method_handler(add),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Items": grpc.unary_stream_rpc_method_handler(items),
        "Total": grpc.stream_unary_rpc_method_handler(total),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def ask(port, calls):
    counts = Counter()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        add, fail = (channel.unary_unary(f"/{SERVICE}/{name}") for name in ("Add", "Fail"))
        items = channel.unary_stream(f"/{SERVICE}/Items")
        total = channel.stream_unary(f"/{SERVICE}/Total")

        def call(number):
            name, make = [
                ("Add", lambda: add(b"one")),
                ("Fail", lambda: fail(b"one")),
                ("Items", lambda: list(items(b"all"))),
                ("Total", lambda: total(iter([b"one"] * 5))),
            ][number % 4]
            try:
                make()
                return name, "OK"
            except grpc.RpcError as error:
                return name, error.code().name

        with futures.ThreadPoolExecutor(max_workers=8) as pool:
            for name, status in pool.map(call, range(calls)):
                counts[(f"{SERVICE}/{name}", status)] += 1
    print(json.dumps([[name, status, count] for (name, status), count in counts.items()]))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        ask(int(sys.argv[2]), int(sys.argv[3]))
