#!/usr/bin/python3
"""cri.py call SOCKET DESCRIPTORS : asks a container runtime by CRI, a request a line, many at once.
cri.py stream URL [COLUMNSxROWS] : exec or attach, at the address that the runtime answered.
cri.py forward URL PORT          : a connection to a port in the pod, from standard input to standard output.

A request is {"number": 1, "version": "v1", "method": "Status", "timeout": 10, "message": {…}}; its answer has the number, and
"answer" or "error". DESCRIPTORS is what scripts/cri-descriptors.sh makes of api.proto.

This is the only CRI client of the tests. It has all messages of Kubernetes' api.proto, v1 and v1alpha2, and the streaming
protocol, and shares no code with what is under test. Sources/CRIAPI has what `martlet bench pod` needs.
"""
import base64
import json
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit


class Runtime:
    """The calls of CRI by their names. v1alpha2 has the messages of v1, some fields short."""

    def __init__(self, path, descriptors):
        import grpc
        from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
        self.grpc, self.json = grpc, json_format
        self.channel = grpc.insecure_channel(f"unix://{path}")
        files = descriptor_pb2.FileDescriptorSet()
        with open(descriptors, "rb") as file:
            files.ParseFromString(file.read())
        pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            pool.AddSerializedFile(file.SerializeToString())
        factory = message_factory.MessageFactory(pool)
        self.methods = {}
        for service in ("RuntimeService", "ImageService"):
            for method in pool.FindServiceByName(f"runtime.v1.{service}").methods:
                types = (factory.GetPrototype(method.input_type), factory.GetPrototype(method.output_type))
                self.methods[method.name] = (service, *types)

    def call(self, request):
        service, question, answer = self.methods[request["method"]]
        method = self.channel.unary_unary(
            f"/runtime.{request['version']}.{service}/{request['method']}",
            request_serializer=question.SerializeToString, response_deserializer=answer.FromString)
        try:
            message = self.json.ParseDict(request["message"], question())
            reply = method(message, timeout=request["timeout"], wait_for_ready=True)
            return {"answer": self.json.MessageToDict(
                reply, preserving_proto_field_name=True, including_default_value_fields=True)}
        except self.grpc.RpcError as error:
            return {"error": f"{error.code().name}: {error.details()}"}
        except self.json.ParseError as error:
            return {"error": f"{request['method']}: {error}"}


def call(path, descriptors):
    runtime, lock = Runtime(path, descriptors), threading.Lock()

    def serve(line):
        request = json.loads(line)
        result = json.dumps({"number": request["number"], **runtime.call(request)})
        with lock:
            print(result, flush=True)

    with ThreadPoolExecutor(64) as pool:
        for line in sys.stdin:
            pool.submit(serve, line)


class WebSocket:
    """The client's side of RFC 6455, with the channels of Kubernetes: the first byte of a message is its channel."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port))
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((
            f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        ).encode())
        self.file = self.socket.makefile("rb")
        status = self.file.readline().decode().strip()
        headers = []
        while (line := self.file.readline()) not in (b"\r\n", b""):
            headers.append(line)
        if " 101 " not in status:
            sys.exit(f"{url}: {status}")

    def send(self, channel, data, opcode=2):
        """A whole message; data may be empty."""
        payload, mask = bytes([channel]) + data, os.urandom(4)
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + size.to_bytes(2, "big")
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.socket.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def messages(self):
        """Each message as its channel and its data, until the other side closes."""
        message = b""
        while len(head := self.file.read(2)) == 2:
            size = head[1] & 0x7F
            if size > 125:
                size = int.from_bytes(self.file.read(2 if size == 126 else 8), "big")
            data, opcode = self.file.read(size), head[0] & 0x0F
            if opcode == 8:
                return
            if opcode in (0, 1, 2):
                message += data
                if head[0] & 0x80 and message:
                    yield message[0], message[1:]
                    message = b""

    def feed(self, descriptor):
        """Sends what can be read there, on channel 0. The protocol has no word for its end."""
        def work():
            while data := os.read(descriptor, 16 << 10):
                self.send(0, data)
        threading.Thread(target=work, daemon=True).start()


def write(descriptor, data):
    while data:
        data = data[os.write(descriptor, data):]


def stream(url, size=None):
    peer = WebSocket(url)
    if size:
        columns, rows = size.split("x")
        peer.send(4, json.dumps({"Width": int(columns), "Height": int(rows)}).encode())
    peer.feed(0)
    for channel, data in peer.messages():
        if channel in (1, 2):
            write(channel, data)
        elif channel == 3 and data:
            status = json.loads(data)
            if status.get("status") == "Success":
                os._exit(0)
            for cause in status.get("details", {}).get("causes", []):
                if cause.get("reason") == "ExitCode":
                    os._exit(int(cause["message"]))
            write(2, status.get("message", str(status)).encode())
            os._exit(255)
    write(2, b"closed without a status\n")
    os._exit(254)


def forward(url, port):
    peer = WebSocket(f"{url}?port={port}")
    greeted = set()
    peer.feed(0)
    for channel, data in peer.messages():
        if channel not in greeted:
            greeted.add(channel)  # the port's number
            data = data[2:]
        write(1 if channel == 0 else 2, data)
    os._exit(0)


if len(sys.argv) < 3:
    sys.exit(__doc__)
{"call": call, "stream": stream, "forward": forward}[sys.argv[1]](*sys.argv[2:])
