// claims_disk.h - a claims file in memory, whose errors can be ordered. The image outlives the claims.
#pragma once

#include <algorithm>

#include "vaultd/block_claims.h"
#include "vaultd/nonce_ledger.h"

namespace sallyport::vaultd::test {

struct ClaimsImage {
  std::vector<std::byte> bytes;
  int failWriteWith = 0;  // an errno
  int failSyncWith = 0;
  size_t shortWrite = SIZE_MAX;
  int syncs = 0;

  explicit ClaimsImage(size_t records, const BlockClaims::Place& place = {}, int64_t nowUnix = 1)
      : bytes(BlockClaims::newImage(place, {}, nowUnix)) {
    bytes.resize(BlockClaims::HEADER_BYTES + records * BlockClaims::RECORD_BYTES);
  }
};

class ClaimsDisk final : public NonceDisk {
 public:
  explicit ClaimsDisk(ClaimsImage& image) : image_(image) {}
  ssize_t read(size_t offset, MutableByteSpan bytes) override {
    if (offset >= image_.bytes.size()) return 0;
    const size_t got = std::min({bytes.size(), image_.bytes.size() - offset, size_t{100}});  // short reads happen
    std::memcpy(bytes.data(), image_.bytes.data() + offset, got);
    return static_cast<ssize_t>(got);
  }
  ssize_t write(size_t offset, ByteSpan bytes) override {
    if (image_.failWriteWith != 0) return -image_.failWriteWith;
    const size_t written = std::min(bytes.size(), image_.shortWrite);
    std::memcpy(image_.bytes.data() + offset, bytes.data(), written);
    return static_cast<ssize_t>(written);
  }
  int sync() override {
    ++image_.syncs;
    return -image_.failSyncWith;
  }

 private:
  ClaimsImage& image_;
};

}  // namespace sallyport::vaultd::test
