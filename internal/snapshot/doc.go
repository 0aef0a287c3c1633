// Package snapshot keeps a user's state in an object store: a log of immutable
// segments and one small head, under users/<user>/.
//
//	head                          the only object that changes, by conditional write only
//	seg/<epoch>-<seq>-<random>    immutable
//
// A start calls Claim, which advances the head's epoch, then Restore. While the
// sandbox runs, Capture copies what changed since the last save (the sandbox is
// frozen meanwhile), and Commit uploads one segment and then the head. The head
// is written with If-Match on the ETag of this run's last write, so a run whose
// epoch has passed can not save any more, whatever it believes: ErrFenced. A run
// that did not restore completely can not save: ErrNotRestored.
//
// # Head
//
// JSON, see Head. It names its segments, oldest first. The state is what the
// segments say when read newest first: for each path the first mention counts,
// be it an entry or a deletion.
//
// # Segment
//
// Blocks, then metadata. A block is up to 1 MiB of file content, compressed with
// zstd (RFC 8878). Small files share blocks in path order; a large file has
// blocks of its own. The metadata is zstd-compressed JSON (segmentMeta): the
// blocks with offset, sizes and SHA-256 of the stored bytes; the entries with
// path, kind, mode, mtime, size, SHA-256 and extents (runs of bytes in blocks);
// the deleted paths. The head holds the metadata's place and SHA-256, so a
// restore verifies every byte before it is decompressed.
//
// # What is kept
//
// Regular files, directories and symbolic links, with permission bits and
// modification times. Set-id bits, owners, extended attributes and hard links
// are not kept (a hard link becomes a file of its own); sockets, FIFOs and
// devices are passed over. A symbolic link is kept as text and never followed.
package snapshot
