package ociruntime

// elfMachine is EM_AARCH64.
const elfMachine = 183

// endedSize is how long the handler of signals is, at the end of the code.
const endedSize = 4 * 4
