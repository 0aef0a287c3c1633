// Package pageout pushes the memory of processes that stand still out of RAM: what
// a file has is dropped, and the rest goes to the swap, if the node has one. It
// comes back page by page when the processes go on and touch it.
package pageout

// Result is how much of the processes' memory was in RAM, in bytes: what they share
// with others counts in parts (PSS, proc_pid_smaps(5)).
type Result struct{ Before, After int64 }

// Gone is how much less of it is in RAM, never below zero.
func (r Result) Gone() int64 { return max(r.Before-r.After, 0) }
