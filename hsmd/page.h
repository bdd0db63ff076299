// page.h - the client's page, mapped: slots for secrets, and the message of a Sign. Part of: hsmd (worker).
#pragma once

#include "common/secret_bytes.h"
#include "hsmd/pin_page.h"

namespace sallyport::hsmd {

class ClientPage {
 public:
  explicit ClientPage(SharedMemory memory) : memory_(std::move(memory)) {}

  static bool isSlot(uint16_t slot) { return slot < hsm::SLOT_COUNT; }
  std::span<std::byte, hsm::SLOT_BYTES> slot(uint16_t slot) {
    CHECK(isSlot(slot));
    return memory_.span().subspan(hsm::SLOT_BYTES * slot).first<hsm::SLOT_BYTES>();
  }
  // A copy: the client can't change it any more while it is looked at.
  template <typename Secret>
  Secret take(uint16_t from) {
    Secret secret;
    const auto bytes = slot(from);
    const auto kept = secret.exposeMutable();
    static_assert(Secret::SIZE <= hsm::SLOT_BYTES);
    for (size_t i = 0; i < kept.size(); ++i) kept[i] = bytes[i];
    wipe(bytes);
    return secret;
  }
  ByteSpan message(uint32_t bytes) {
    CHECK(bytes <= hsm::MESSAGE_BYTES);
    return memory_.span().subspan(hsm::MESSAGE_OFFSET, bytes);
  }

 private:
  SharedMemory memory_;
};

}  // namespace sallyport::hsmd
