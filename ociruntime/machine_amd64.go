package ociruntime

// elfMachine is EM_X86_64.
const elfMachine = 62

// endedSize is how long the handler of signals is, at the end of the code.
const endedSize = 7 + 7 + 2 + 2
