// control.cc - what is right compiles: without this file every other one could fail for a reason of its own.
#include "common/secret_bytes.h"
#include "netd/short_term_box.h"
#include "vaultd/long_term_nonce.h"

namespace sallyport {

LongNonceBytes bothNonces(vaultd::NonceSource<vaultd::BoxRole::Cookie>& source, std::ostream&) {
  auto nonce = source.draw();
  auto moved = std::move(*nonce);
  return std::move(moved).spend();
}

bool everythingElse(const PublicKey& key, netd::SharedKey shared) {
  netd::SharedKey moved = std::move(shared);
  const netd::ClientToServerKey there = netd::clientToServerKey(moved);
  const netd::ServerToClientKey back = netd::serverToClientKey(moved);
  return key == PublicKey(key.span()) && equalsConstantTime(there.expose(), back.expose());
}

}  // namespace sallyport
