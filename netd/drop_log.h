// drop_log.h - which drops become a line of the log. Part of: netd-worker (pure but for the origin's type).
// A peer can cause drops as fast as it can send, so lines are rationed: one a second for refusals (a peer that is
// genuine, or a vault that says no: what an operator can mend) and one a second for all others, so that garbage can't
// hide a refusal. What was left out is counted in the next line of its kind. Never here: a byte of the peer but its
// address and, once it has proved to hold it, its public key.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "common/log_ration.h"
#include "netd/entries.h"
#include "netd/origin.h"
#include "proto/wire/drop_reason.h"

namespace sallyport::netd {

struct Dropped {
  wire::DropReason reason;
  const Entry& entry;
  const Origin* from = nullptr;     // null: not an incoming connection, or it was a session already
  const PublicKey* peer = nullptr;  // the key that the peer has proved to hold; null: none
};

class DropLog {
 public:
  // The line, e.g. "refused reason=peer_not_allowed entry=db from=192.0.2.1:40000 key=BASE64 unlogged=12"; or nothing.
  std::optional<std::string> note(const Dropped& dropped, uint64_t nowMs);

 private:
  LogRation refusals_;
  LogRation others_;
};

}  // namespace sallyport::netd
