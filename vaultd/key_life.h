// key_life.h - what changes the versions of a key: rotation, retiring, deletion with a window, and the one-way
// switches. Part of: vaultd's key library. Pure: the time is an argument, and nothing is written. A refusal leaves the
// key as it was.
#pragma once

#include <optional>

#include "vaultd/key_format.h"

namespace sallyport::vaultd {

struct Rotation {
  int64_t activateIn = 0;  // seconds until the new version is active
  int64_t grace = 0;       // seconds that the old one still opens after that
  bool unused = false;     // KeyVersion::unused of the new one
};
// Adds a version with this secret. Refused while another one is pending, or when none is active.
Result<void, Problem> rotate(OpenedKey& key, LongTermSecret secret, const Rotation& rotation, int64_t nowUnix);
// The same for a key in a token, which has made `made` for it.
Result<void, Problem> rotateInToken(OpenedKey& key, const TokenKey& made, const Rotation& rotation, int64_t nowUnix);
// Would rotate() refuse? To be asked before a token makes a key that nobody can take out again.
Result<void, Problem> mayRotate(const KeyHeader& header, int64_t nowUnix);
// --- blocks that two hosts share (`sallyport pair`) ---

// So many versions may wait for their confirmation at a time.
inline constexpr size_t MAX_WAITING_BLOCKS = 2;
// Adds a version with this block: active at once, or waiting. The other host may use one that waits here already, when
// the last step of its pairing was lost: beside one more that waits it stays (the oldest goes when there are too many),
// and when the added one is active at once it is open-only for the grace, as the one that was active.
Result<void, Problem> addBlock(OpenedKey& key, LongTermSecret block, int64_t grace, bool awaits, int64_t nowUnix);
// The version that waits and has this fingerprint is active from now on. Older ones that wait go: the other host uses
// this one.
Result<void, Problem> confirmBlock(OpenedKey& key, const PublicKey& fingerprint, int64_t grace, int64_t nowUnix);

// The active version is older than `every` seconds, and none is pending.
bool rotationDue(const KeyHeader& header, int64_t every, int64_t nowUnix);

// A version that isn't used any more from now on. A pending one is taken back: the active one stays active. The active
// one is refused.
Result<void, Problem> retire(OpenedKey& key, uint32_t number, int64_t nowUnix);
// Not used from now on, destroyed after `window` seconds: one version, which isn't active, or all of them.
Result<void, Problem> markDeleted(OpenedKey& key, std::optional<uint32_t> number, int64_t window, int64_t nowUnix);
// As it was before, if the window is not over.
Result<void, Problem> undelete(OpenedKey& key, std::optional<uint32_t> number, int64_t nowUnix);

// Drops the secrets of the versions that are destroyed by now. How many.
size_t dropDestroyed(OpenedKey& key, int64_t nowUnix);

}  // namespace sallyport::vaultd
