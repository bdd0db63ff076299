// cookie_keys.h - the minute keys that cookies are sealed with. Part of: netd (monitor makes and rotates them, workers
// use them). docs/protocol.md §7. Two are kept; an older cookie opens under none. A key that leaves is wiped: from then
// on the sessions whose cookies it sealed are forward secret.
#pragma once

#include <optional>

#include "common/bytes.h"
#include "common/secret_bytes.h"
#include "netd/short_term_box.h"
#include "proto/wire/packet.h"

namespace sallyport::netd {

struct MinuteKeyTag;
using MinuteKey = SecretBytes<MinuteKeyTag, wire::KEY_BYTES>;
using Cookie = wire::Block<wire::COOKIE_BYTES>;

// What a cookie holds: the connection's own memory, kept by the client.
struct CookieContent {
  PublicKey clientEphemeral;  // EC
  EphemeralSecret secret;     // ESs
};

class CookieKeys {
 public:
  // The current key becomes the previous one; the previous one is wiped.
  void rotate(MinuteKey fresh);
  bool ready() const { return current_.has_value(); }

  // K = R || secretbox of EC, ESs under "minute-k" R, with R random.
  Cookie seal(const PublicKey& clientEphemeral, const EphemeralSecret& secret) const;
  std::optional<CookieContent> open(const Cookie& cookie) const;

 private:
  std::optional<MinuteKey> current_;
  std::optional<MinuteKey> previous_;
};

}  // namespace sallyport::netd
