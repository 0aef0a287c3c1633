// Package snapshot keeps a user's state in an object store: a log of immutable
// segments and one small head, under users/<user>/.
//
//	head                          the only object that changes, by conditional write only
//	seg/<epoch>-<seq>-<random>    immutable
//	history/, pinned/             copies of earlier heads
//	gc                            since when which segment is named by nothing
//
// A start calls Claim, which advances the head's epoch, then Restore. While the
// sandbox runs, Capture copies what changed since the last save (the sandbox is
// frozen meanwhile), and Commit uploads one segment and then the head. The head
// is written with If-Match on the ETag of this run's last write, so a run whose
// epoch has passed can not save any more, whatever it believes: ErrFenced. A run
// that did not restore completely can not save: ErrNotRestored.
//
// docs/snapshot-format.md describes the objects, for whoever writes another reader.
//
// # What is kept
//
// Regular files, directories and symbolic links, with permission bits and
// modification times. Set-id bits, owners, extended attributes and hard links
// are not kept (a hard link becomes a file of its own); sockets, FIFOs and
// devices are passed over. A symbolic link is kept as text and never followed.
package snapshot
