// The probe service with containerd's own implementation of ttrpc: `peer serve SOCKET [RECORDING]` answers,
// `peer call SOCKET` calls a server and says what differs from what probe.proto promises.
package main

import (
	"context"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const service = "martlet.test.v1.Probe"

// probe.proto, compiled by protoc.
//
//go:embed probe.pb
var compiled []byte
var itemType protoreflect.MessageDescriptor

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func item() *dynamicpb.Message { return dynamicpb.NewMessage(itemType) }

func field(name string) protoreflect.FieldDescriptor {
	return itemType.Fields().ByName(protoreflect.Name(name))
}

func numbered(number int64) *dynamicpb.Message {
	message := item()
	message.Set(field("number"), protoreflect.ValueOfInt64(number))
	return message
}

func number(message *dynamicpb.Message) int64 { return message.Get(field("number")).Int() }

func main() {
	var set descriptorpb.FileDescriptorSet
	check(proto.Unmarshal(compiled, &set))
	file, err := protodesc.NewFile(set.File[0], nil)
	check(err)
	itemType = file.Messages().ByName("Item")
	if len(os.Args) > 3 && os.Args[1] == "serve" {
		serve(os.Args[2], os.Args[3])
	} else if len(os.Args) > 2 && os.Args[1] == "call" {
		call(os.Args[2])
	} else {
		check(errors.New("serve SOCKET RECORDING, or call SOCKET"))
	}
}

func describe() *ttrpc.ServiceDesc {
	return &ttrpc.ServiceDesc{
		Methods: map[string]ttrpc.Method{"Echo": echo, "Fail": fail, "Sleep": sleep},
		Streams: map[string]ttrpc.Stream{
			"Count": {Handler: count, StreamingServer: true},
			"Sum":   {Handler: sum, StreamingClient: true},
			"Chat":  {Handler: chat, StreamingClient: true, StreamingServer: true},
		},
	}
}

func echo(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
	message := item()
	if err := unmarshal(message); err != nil {
		return nil, err
	}
	if metadata, ok := ttrpc.GetMetadata(ctx); ok {
		entries := message.Mutable(field("metadata")).Map()
		for key, values := range metadata {
			text := strings.Join(values, ";") + ";"
			entries.Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString(text))
		}
	}
	return message, nil
}

func fail(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
	message := item()
	if err := unmarshal(message); err != nil {
		return nil, err
	}
	return nil, status.Error(codes.Code(number(message)), message.Get(field("text")).String())
}

func sleep(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
	message := item()
	if err := unmarshal(message); err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(number(message)) * time.Millisecond):
		return message, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func count(ctx context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	message := item()
	if err := stream.RecvMsg(message); err != nil {
		return nil, err
	}
	for i := int64(0); i < number(message); i++ {
		if err := stream.SendMsg(numbered(i)); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func sum(ctx context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	total := int64(0)
	for {
		message := item()
		if err := stream.RecvMsg(message); err == io.EOF {
			return numbered(total), nil
		} else if err != nil {
			return nil, err
		}
		total += number(message)
	}
}

func chat(ctx context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	for {
		message := item()
		if err := stream.RecvMsg(message); err == io.EOF {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		if err := stream.SendMsg(message); err != nil {
			return nil, err
		}
	}
}

// A connection that writes down what goes through it: a line for each run of bytes, C from the client, S from here.
type recorder struct {
	net.Conn
	lock *sync.Mutex
	file *os.File
	last *byte
}

func (r recorder) note(side byte, bytes []byte) {
	if len(bytes) == 0 {
		return
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	if *r.last != side {
		fmt.Fprintf(r.file, "\n%c ", side)
	}
	*r.last = side
	fmt.Fprint(r.file, hex.EncodeToString(bytes))
}

func (r recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.note('C', p[:n])
	return n, err
}

func (r recorder) Write(p []byte) (int, error) {
	r.note('S', p)
	return r.Conn.Write(p)
}

type recordingListener struct {
	net.Listener
	file *os.File
}

func (l recordingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return recorder{conn, &sync.Mutex{}, l.file, new(byte)}, nil
}

func serve(socket, recording string) {
	file, err := os.Create(recording)
	check(err)
	server, err := ttrpc.NewServer()
	check(err)
	server.RegisterService(service, describe())
	listener, err := net.Listen("unix", socket)
	check(err)
	check(server.Serve(context.Background(), recordingListener{listener, file}))
}

func expect(what string, got, want interface{}) {
	if got != want {
		check(fmt.Errorf("%s: got %v, want %v", what, got, want))
	}
}

func call(socket string) {
	conn, err := net.Dial("unix", socket)
	check(err)
	client := ttrpc.NewClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	answer := item()
	withMetadata := ttrpc.WithMetadata(ctx, ttrpc.MD{"key": {"a", "b"}})
	check(client.Call(withMetadata, service, "Echo", numbered(5), answer))
	expect("Echo", number(answer), int64(5))
	entry := answer.Get(field("metadata")).Map().Get(protoreflect.ValueOfString("key").MapKey())
	expect("metadata", entry.String(), "a;b;")

	failing := numbered(int64(codes.FailedPrecondition))
	failing.Set(field("text"), protoreflect.ValueOfString("not now"))
	failure, _ := status.FromError(client.Call(ctx, service, "Fail", failing, item()))
	expect("Fail's code", failure.Code(), codes.FailedPrecondition)
	expect("Fail's message", failure.Message(), "not now")
	missing, _ := status.FromError(client.Call(ctx, service, "None", item(), item()))
	expect("the code of a method that is missing", missing.Code(), codes.Unimplemented)

	short, cancelShort := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancelShort()
	if err := client.Call(short, service, "Sleep", numbered(60000), item()); err == nil {
		check(errors.New("Sleep did not end at its deadline"))
	}

	counting, err := client.NewStream(ctx, &ttrpc.StreamDesc{StreamingServer: true}, service, "Count", numbered(300))
	check(err)
	for i := int64(0); i < 300; i++ {
		check(counting.RecvMsg(answer))
		expect("Count", number(answer), i)
	}
	expect("the end of Count", counting.RecvMsg(answer), io.EOF)

	summing, err := client.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true}, service, "Sum", nil)
	check(err)
	for i := int64(1); i <= 300; i++ {
		check(summing.SendMsg(numbered(i)))
	}
	check(summing.CloseSend())
	check(summing.RecvMsg(answer))
	expect("Sum", number(answer), int64(45150))

	both := &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}
	chatting, err := client.NewStream(ctx, both, service, "Chat", nil)
	check(err)
	for i := int64(0); i < 100; i++ {
		check(chatting.SendMsg(numbered(i)))
		check(chatting.RecvMsg(answer))
		expect("Chat", number(answer), i)
	}
	check(chatting.CloseSend())
	expect("the end of Chat", chatting.RecvMsg(answer), io.EOF)
	fmt.Println("every call was answered as promised")
}
