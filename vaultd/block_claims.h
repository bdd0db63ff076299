// block_claims.h - which blocks a connection in base mode was opened with, for ever. Part of: vaultd's key library (the
// vault writes it; the CLI only makes the file with the first block). docs/protocol.md §14.
//
// `KEYS/block-claims`: a header of 4 KiB and a record of 64 bytes for each claim, in the order of the claims. A record
// lies within one sector, is written into room that was allocated at the start, and is durable before the block is
// used. So a record that is neither whole nor zero is damage, not a crash: then nothing is believed.
//
// What must never happen here: a block that is usable because the file is missing, an older copy (also one that was put
// back in place: its last change is then later than the vault's own last word in it), or somebody else's.
// Then every block that is there counts as used. A failed write or fdatasync ends all claims for the life of the
// process.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <unordered_set>

#include "vaultd/key_file.h"

namespace sallyport::vaultd {

class NonceDisk;  // nonce_ledger.h: all that is known of a disk

enum class ClaimRefusal : uint8_t {
  Used,        // claimed before, or nobody knows
  Unavailable  // the claim can't be made durable
};

class BlockClaims {
 public:
  static constexpr size_t HEADER_BYTES = 4096;
  static constexpr size_t RECORD_BYTES = 64;
  static constexpr size_t SPARE_RECORDS = 1024;     // allocated at each start
  static constexpr size_t MAX_RECORDS = 64 * 1024;  // 4 MiB
  using Place = std::array<std::byte, 16>;

  // The content of a new file, in which these blocks count as used.
  static std::vector<std::byte> newImage(const Place& place, std::span<const PublicKey> used, int64_t nowUnix);
  // The problem doesn't name the file.
  static Result<std::unique_ptr<BlockClaims>, Problem> open(std::unique_ptr<NonceDisk> disk, const Place& place,
                                                            size_t fileBytes);
  // No block is usable, and why.
  static std::unique_ptr<BlockClaims> unusable(std::string why);

  ~BlockClaims();
  bool isClaimed(const PublicKey& fingerprint) const { return !why_.empty() || claimed_.contains(fingerprint); }
  // Durable when it says so. Each fingerprint once.
  Result<void, ClaimRefusal> claim(const PublicKey& fingerprint, int64_t nowUnix);
  // "ready", or why no block can be claimed.
  std::string describe() const { return why_.empty() ? "ready" : why_; }
  size_t size() const { return claimed_.size(); }
  // The file was made longer, with zeros.
  void hasRoomFor(size_t records) { room_ = records; }

 private:
  BlockClaims();

  std::unique_ptr<NonceDisk> disk_;
  std::unordered_set<PublicKey, PublicKeyHash> claimed_;
  size_t next_ = 0;  // record
  size_t room_ = 0;  // records that fit the allocated file
  std::string why_;
};

std::filesystem::path claimsPath(const std::filesystem::path& folder);
// Makes the file if there is none, with every block of the folder as used. Before a new block is stored.
Result<void, Problem> ensureClaims(const std::filesystem::path& folder);

struct ClaimsProblem {
  bool inUse = false;  // another vault has it
  Problem problem;
};
// For the vault, before lock-down. The file is made if it is missing, and locked as long as the claims live.
Result<std::unique_ptr<BlockClaims>, ClaimsProblem> openClaims(const std::filesystem::path& folder,
                                                               const FileOwners& owners);
// What openClaims() would give, or have against the file. It is only read, also while a vault has it. If it is missing
// every block is claimed: the vault makes it so.
Result<std::unique_ptr<BlockClaims>, Problem> inspectClaims(const std::filesystem::path& folder,
                                                            const FileOwners& owners);

}  // namespace sallyport::vaultd
