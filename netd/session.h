// session.h - an established session: seals and opens messages in place. Part of: netd-worker (sans-IO).
// docs/protocol.md §2. No socket, clock or allocation here. 96 bytes a connection: two subkeys, two counters, one
// verdict. Never here: a counter used twice; a text handed out before its tag was judged; anything opened after a
// fault.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>

#include "common/result.h"
#include "netd/short_term_box.h"
#include "proto/wire/drop_reason.h"
#include "proto/wire/packet.h"

namespace sallyport::netd {

enum class Role : uint8_t { Client, Server };

// Where the text of a message begins in its frame.
inline constexpr size_t MESSAGE_TEXT_OFFSET = wire::FRAME_HEADER_BYTES + wire::MESSAGE_OVERHEAD_BYTES;

class Session {
 public:
  Session(Role role, const SharedKey& key);

  // `frame` is MESSAGE_TEXT_OFFSET bytes of room, then the text (0 .. 65,503 bytes): becomes the frame to send.
  std::optional<wire::DropReason> seal(MessageCipher& cipher, MutableByteSpan frame);
  // `packet` is the payload of a received frame; the result is the text inside it. After a refusal the session is dead:
  // every further call repeats the reason.
  Result<MutableByteSpan, wire::DropReason> open(MessageCipher& cipher, MutableByteSpan packet);

  uint64_t sealed() const { return sendCounter_ - wire::FIRST_MESSAGE_COUNTER; }

  // For the test of the last counter alone.
  void skipToCounters(uint64_t send, uint64_t receive);

 private:
  Role role_;
  std::optional<wire::DropReason> dead_;
  uint64_t sendCounter_ = wire::FIRST_MESSAGE_COUNTER;
  uint64_t receiveCounter_ = wire::FIRST_MESSAGE_COUNTER;
  ClientToServerKey clientToServer_;
  ServerToClientKey serverToClient_;
};

}  // namespace sallyport::netd
