// memory_disk.h - a nonce state that lives in memory, ledgers on it, and the way back from a nonce to its counter.
#pragma once

#include <openssl/evp.h>
#include <sodium.h>

#include <memory>

#include "common/check.h"
#include "vaultd/long_term_nonce.h"
#include "vaultd/nonce_ledger.h"

namespace sallyport::vaultd::test {

// Writes reach the image at once; errors can be ordered. The image outlives the ledger.
struct DiskState {
  NonceLedger::Image image{};
  int failWriteWith = 0;  // an errno
  int failSyncWith = 0;
  size_t shortWriteBytes = NonceLedger::SLOT_BYTES;
  int writes = 0;
  int syncs = 0;
};

class MemoryDisk final : public NonceDisk {
 public:
  explicit MemoryDisk(DiskState& state) : state_(state) {}
  ssize_t read(size_t offset, MutableByteSpan bytes) override {
    std::memcpy(bytes.data(), state_.image.data() + offset, bytes.size());
    return static_cast<ssize_t>(bytes.size());
  }
  ssize_t write(size_t offset, ByteSpan bytes) override {
    ++state_.writes;
    if (state_.failWriteWith != 0) return -state_.failWriteWith;
    const size_t written = std::min(bytes.size(), state_.shortWriteBytes);
    std::memcpy(state_.image.data() + offset, bytes.data(), written);
    return static_cast<ssize_t>(written);
  }
  int sync() override {
    ++state_.syncs;
    return -state_.failSyncWith;
  }

 private:
  DiskState& state_;
};

inline std::unique_ptr<NonceLedger> freshLedger() {
  static DiskState state;
  state = {};
  state.image = NonceLedger::newImage({}, 0);
  auto ledger = NonceLedger::open(std::make_unique<MemoryDisk>(state), {}, [] { return uint64_t{0}; });
  CHECK(ledger.has_value());
  return std::move(*ledger);
}

inline uint64_t counterOf(const LongNonceBytes& nonce, const NonceKey& key) {
  unsigned char block[16];
  int written = 0;
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  CHECK(EVP_DecryptInit_ex(context, EVP_aes_256_ecb(), nullptr, key.exposeData(), nullptr) == 1);
  EVP_CIPHER_CTX_set_padding(context, 0);
  CHECK(EVP_DecryptUpdate(context, block, &written, nonce.data(), 16) == 1 && written == 16);
  EVP_CIPHER_CTX_free(context);
  uint64_t counter = 0;
  for (int i = 0; i < 8; ++i) counter = counter << 8 | block[i];
  return counter;
}

}  // namespace sallyport::vaultd::test
