package specjson

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// compare decodes data by both ways.
func compare(t *testing.T, data []byte) {
	t.Helper()
	var ours, theirs specs.Spec
	err := json.Unmarshal(data, &theirs)
	if got := Unmarshal(data, &ours); (got == nil) != (err == nil) {
		t.Fatalf("the error is %v, want %v", got, err)
	}
	if err == nil && !reflect.DeepEqual(ours, theirs) {
		a, _ := json.Marshal(ours)
		b, _ := json.Marshal(theirs)
		t.Errorf("decoded as\n%s, want\n%s", a, b)
	}
}

// cases are documents and pieces of them that are easily taken wrongly.
var cases = []string{
	`{}`, `null`, ` { } `, `[]`, `{`, ``, `1`, `"x"`,
	`{"ociVersion":"1.0.2","process":{"args":["a","b\n\u00e9\ud83d\ude00"],"user":{"uid":4294967295},"rlimits":null,"env":[]}}`,
	`{"OCIVERSION":"1","Process":{"ARGS":[]}}`,
	`{"hostname":"a","hostname":null,"hostname":"b"}`,
	`{"mounts":[{"options":["a"]},null,{}],"mounts":[{"type":"x"}]}`,
	`{"linux":{"resources":{"devices":[{"allow":true,"major":-1}],"cpu":{"shares":18446744073709551615,"quota":-9223372036854775808},"blockIO":{"weightDevice":[{"major":8,"minor":1,"weight":9}],"throttleReadBpsDevice":[{"major":1,"minor":2,"rate":3}]},"unified":{"a":"b"},"rdma":{"m":{"hcaHandles":3}}}}}`,
	`{"linux":{"sysctl":{"a":"1","":"2"},"devices":[{"fileMode":438,"uid":0}],"seccomp":{"defaultAction":"X","syscalls":[{"names":["a"],"args":[{"index":1,"value":2,"op":"Y"}],"errnoRet":5}]}}}`,
	`{"process":{"user":{"uid":1.0}}}`, `{"process":{"user":{"uid":1e2}}}`, `{"process":{"user":{"uid":-1}}}`, `{"process":{"user":{"uid":4294967296}}}`,
	`{"process":{"terminal":1}}`, `{"process":{"args":"a"}}`, `{"process":[]}`, `{"annotations":{"a":1}}`, `{"annotations":{"a":null}}`,
	`{"unknown":{"a":[1,{"b":"}\"]"}]},"hostname":"h"}`,
	`{"windows":{"credentialSpec":{"a":[1]}}}`,
	"{\"hostname\":\"\xff\"}",
}

func TestAsEncodingJSONDoes(t *testing.T) {
	for _, c := range cases {
		t.Run(c, func(t *testing.T) { compare(t, []byte(c)) })
	}
	files, err := filepath.Glob("../../*/testdata/*/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("specs to compare: %d, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(file, func(t *testing.T) { compare(t, data) })
	}
}

func FuzzAsEncodingJSONDoes(f *testing.F) {
	for _, c := range cases {
		f.Add([]byte(c))
	}
	f.Fuzz(compare)
}
