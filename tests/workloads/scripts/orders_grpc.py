"""A gRPC service that answers every method with an empty message. Prints the port that it listens on."""

from concurrent import futures

import grpc


class Anything(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")


server = grpc.server(futures.ThreadPoolExecutor(8), handlers=(Anything(),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
