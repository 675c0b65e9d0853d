package taskapi_test

import (
	"slices"
	"testing"

	"github.com/containerd/containerd/api/events"
	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	sandboxapi "github.com/containerd/containerd/api/runtime/sandbox/v1"
	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// same has each of our messages and the generated ones that it stands for. Of
// some, we leave out fields: deprecated ones, and capabilities that we lack.
var same = []struct {
	ours   wire.Message
	theirs []proto.Message
	except []protoreflect.Name
}{
	{new(taskapi.CreateRequest), msgs(new(taskv3.CreateTaskRequest), new(taskv2.CreateTaskRequest)), nil},
	{new(taskapi.PidResponse), msgs(new(taskv3.CreateTaskResponse), new(taskv3.StartResponse), new(taskv2.StartResponse)), nil},
	{new(taskapi.ProcessRequest), msgs(
		new(taskv3.StateRequest), new(taskv3.StartRequest), new(taskv3.DeleteRequest), new(taskv3.WaitRequest),
		new(taskv3.PidsRequest), new(taskv3.PauseRequest), new(taskv3.ResumeRequest), new(taskv3.StatsRequest),
		new(taskv3.ConnectRequest), new(taskv2.StateRequest)), nil},
	{new(taskapi.DeleteResponse), msgs(new(taskv3.DeleteResponse), new(taskv2.DeleteResponse)), nil},
	{new(taskapi.ExecRequest), msgs(new(taskv3.ExecProcessRequest), new(taskv2.ExecProcessRequest)), nil},
	{new(taskapi.ResizeRequest), msgs(new(taskv3.ResizePtyRequest), new(taskv2.ResizePtyRequest)), nil},
	{new(taskapi.StateResponse), msgs(new(taskv3.StateResponse), new(taskv2.StateResponse)), nil},
	{new(taskapi.KillRequest), msgs(new(taskv3.KillRequest), new(taskv2.KillRequest)), nil},
	{new(taskapi.CloseIORequest), msgs(new(taskv3.CloseIORequest), new(taskv2.CloseIORequest)), nil},
	{new(taskapi.PidsResponse), msgs(new(taskv3.PidsResponse), new(taskv2.PidsResponse)), nil},
	{new(taskapi.ProcessDetails), msgs(new(options.ProcessDetails)), nil},
	{new(taskapi.UpdateRequest), msgs(new(taskv3.UpdateTaskRequest), new(taskv2.UpdateTaskRequest)), nil},
	{new(taskapi.CheckpointRequest), msgs(new(taskv3.CheckpointTaskRequest), new(taskv2.CheckpointTaskRequest)), nil},
	{new(taskapi.WaitResponse), msgs(new(taskv3.WaitResponse), new(taskv2.WaitResponse)), nil},
	{new(taskapi.StatsResponse), msgs(new(taskv3.StatsResponse), new(taskv2.StatsResponse)), nil},
	{new(taskapi.ConnectResponse), msgs(new(taskv3.ConnectResponse), new(taskv2.ConnectResponse)), nil},
	{new(taskapi.ShutdownRequest), msgs(new(taskv3.ShutdownRequest), new(taskv2.ShutdownRequest)), nil},
	{new(taskapi.Empty), msgs(new(emptypb.Empty)), nil},

	{new(taskapi.CreateSandboxRequest), msgs(new(sandboxapi.CreateSandboxRequest)), nil},
	{new(taskapi.StartSandboxResponse), msgs(new(sandboxapi.StartSandboxResponse)), []protoreflect.Name{"spec"}},
	{new(taskapi.SandboxRequest), msgs(new(sandboxapi.StopSandboxRequest)), nil},
	{new(taskapi.PlatformResponse), msgs(new(sandboxapi.PlatformResponse)), nil},
	{new(taskapi.Platform), msgs(new(types.Platform)), nil},
	{new(taskapi.SandboxStatusResponse), msgs(new(sandboxapi.SandboxStatusResponse)), []protoreflect.Name{"extra"}},
	{new(taskapi.SandboxMetricsResponse), msgs(new(sandboxapi.SandboxMetricsResponse)), nil},

	{new(taskapi.TaskCreate), msgs(new(events.TaskCreate)), nil},
	{new(taskapi.TaskStart), msgs(new(events.TaskStart)), nil},
	{new(taskapi.TaskExit), msgs(new(events.TaskExit)), nil},
	{new(taskapi.TaskDelete), msgs(new(events.TaskDelete)), nil},
	{new(taskapi.TaskOOM), msgs(new(events.TaskOOM)), nil},
	{new(taskapi.TaskExecAdded), msgs(new(events.TaskExecAdded)), nil},
	{new(taskapi.TaskExecStarted), msgs(new(events.TaskExecStarted)), nil},
	{new(taskapi.TaskPaused), msgs(new(events.TaskPaused)), nil},
	{new(taskapi.TaskResumed), msgs(new(events.TaskResumed)), nil},
	{new(taskapi.TaskCheckpointed), msgs(new(events.TaskCheckpointed)), nil},
	{new(taskapi.ForwardRequest), msgs(new(eventsapi.ForwardRequest)), nil},

	{new(taskapi.BootstrapParams), msgs(new(bootstrap.BootstrapParams)), nil},
	{new(taskapi.BootstrapResult), msgs(new(bootstrap.BootstrapResult)), []protoreflect.Name{"capabilities"}},
	{new(taskapi.Options), msgs(new(options.Options)), []protoreflect.Name{"task_api_address", "task_api_version"}},
	{new(taskapi.RuntimeInfo), msgs(new(types.RuntimeInfo)), nil},
	{new(taskapi.RuntimeRequest), msgs(new(types.RuntimeRequest)), nil},
}

func msgs(m ...proto.Message) []proto.Message { return m }

func TestOurMessagesAreThoseOfContainerd(t *testing.T) {
	for _, row := range same {
		for _, theirs := range row.theirs {
			name := theirs.ProtoReflect().Descriptor().FullName()
			t.Run(string(name), func(t *testing.T) {
				fill(theirs.ProtoReflect(), row.except)
				roundTrip(t, theirs, row.ours)
				proto.Reset(theirs)
				roundTrip(t, theirs, row.ours)
			})
		}
	}
}

func TestEventsHaveTheirTypesName(t *testing.T) {
	for _, row := range same {
		if e, ok := row.ours.(taskapi.Event); ok {
			want := string(row.theirs[0].ProtoReflect().Descriptor().FullName())
			if e.TypeURL() != want {
				t.Errorf("type URL is %q, want %q", e.TypeURL(), want)
			}
		}
	}
}

// roundTrip sends m through our codec and back.
func roundTrip(t *testing.T, m proto.Message, ours wire.Message) {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	clearMessage(ours)
	if err := wire.Unmarshal(b, ours); err != nil {
		t.Fatal(err)
	}
	back := m.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(wire.Marshal(ours), back); err != nil {
		t.Fatal(err)
	}
	// ProcessRequest has a second field that some of its messages do not.
	if !proto.Equal(m, back) {
		t.Errorf("came back as %v, want %v", back, m)
	}
}

// fill sets every field of m to a value that is its own.
func fill(m protoreflect.Message, except []protoreflect.Name) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case slices.Contains(except, f.Name()):
		case f.IsMap():
			mp := m.Mutable(f).Map()
			for _, k := range []string{"a", "", "c"} {
				mp.Set(protoreflect.ValueOfString(k).MapKey(), protoreflect.ValueOfString("v"+k))
			}
		case f.IsList():
			l := m.Mutable(f).List()
			for range 2 {
				l.Append(value(f, func() protoreflect.Value { return l.NewElement() }))
			}
		default:
			m.Set(f, value(f, func() protoreflect.Value { return m.NewField(f) }))
		}
	}
}

func value(f protoreflect.FieldDescriptor, fresh func() protoreflect.Value) protoreflect.Value {
	n := f.Number()
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(string(f.FullName()))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{0, byte(n), 255})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1<<31 + uint32(n))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(-int32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(-1 << 40)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(3)
	case protoreflect.MessageKind:
		v := fresh()
		fill(v.Message(), nil)
		return v
	}
	panic("no value for " + f.Kind().String())
}
