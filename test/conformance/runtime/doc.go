// Package runtime holds gantry-runtime to the public suites of OCI runtimes: the
// validation programs of runtime-tools, runc's integration tests and crun's tests.
//
// Each suite has a list in testdata of what every test comes to, with the reason
// where ours does not pass: a test that comes to less is a regression. 'go test'
// runs what is quick; with -all the whole, and the control too, which is the
// suite's own runtime.
package runtime
