// flow.h - what the tests of secret flow share: secrets are marked as undefined for valgrind's memcheck, and what it
// reports of a step is counted. See secret_flow.cc.
#pragma once

#include <sodium.h>
#include <valgrind/memcheck.h>

#include <functional>
#include <string>
#include <vector>

#include "common/secret_bytes.h"
#include "vaultd/key_format.h"

namespace sallyport::vaultd::flow {

void expect(bool good, const std::string& what);
int failures();

inline void makeSecret(ByteSpan bytes) { VALGRIND_MAKE_MEM_UNDEFINED(bytes.data(), bytes.size()); }
// What leaves the vault: from here on anybody may look at it.
inline void publish(ByteSpan bytes) { VALGRIND_MAKE_MEM_DEFINED(bytes.data(), bytes.size()); }
bool dependsOnASecret(ByteSpan bytes);
// Results that must follow from the secret; then they are published.
void expectSecret(ByteSpan bytes, const std::string& what);

// Nothing may be reported of `work`.
void step(const std::string& name, const std::function<void()>& work);
// Something must be, or nothing above says anything.
void control(const std::string& name, const std::function<void()>& work);

struct Pair {
  PublicKey publicKey;
  std::array<unsigned char, 32> secret;
  Pair() { crypto_box_keypair(publicKey.data(), secret.data()); }
};

inline std::vector<std::byte> forged(std::vector<std::byte> box) {
  box.back() ^= std::byte{1};
  return box;
}

// The steps of each file.
void boxFlows();    // box_flow.cc: boxes, signatures, nonces, the audit log
void keyFlows();    // key_flow.cc: key files, slots, shares, keys from elsewhere
void blockFlows();  // block_flow.cc: the peer protocol

}  // namespace sallyport::vaultd::flow
