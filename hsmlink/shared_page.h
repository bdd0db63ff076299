// shared_page.h - the memory through which secrets pass between us and an hsmd. Part of: hsmlink (vaultd, CLI).
// docs/protocol.md §12. memfd_secret where the kernel has it; else a memfd that can't shrink under us, locked and kept
// out of core dumps. Both sides write it at will, so what is read from it is copied once and judged afterwards.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <kj/io.h>

#include "common/bytes.h"
#include "common/result.h"
#include "proto/hsm/frames.h"

namespace sallyport::hsmlink {

class SharedPage {
 public:
  // The error is for people.
  static Result<std::unique_ptr<SharedPage>, std::string> create();
  ~SharedPage();  // wipes it
  SharedPage(const SharedPage&) = delete;
  SharedPage& operator=(const SharedPage&) = delete;

  std::span<std::byte, hsm::SLOT_BYTES> slot(uint16_t number) const {
    CHECK(number < hsm::SLOT_COUNT);
    return std::span<std::byte, hsm::SLOT_BYTES>(memory_ + size_t{number} * hsm::SLOT_BYTES, hsm::SLOT_BYTES);
  }
  std::span<std::byte, hsm::MESSAGE_BYTES> message() const {
    return std::span<std::byte, hsm::MESSAGE_BYTES>(memory_ + hsm::MESSAGE_OFFSET, hsm::MESSAGE_BYTES);
  }
  void wipeAll();
  std::string_view describe() const { return secret_ ? "memfd_secret" : "locked memory"; }

  // To be inherited by the keeper. closeFd(): it is, and the mapping stays.
  int fd() const { return fd_; }
  void closeFd() { fd_ = nullptr; }

 private:
  SharedPage() = default;

  kj::AutoCloseFd fd_;
  std::byte* memory_ = nullptr;
  bool secret_ = false;
};

}  // namespace sallyport::hsmlink
