// operations.h - single cryptographic operations of a module in one session. Part of: hsmd (worker and probe).
// Nothing here keeps state, logs or decides; results go where the caller says and are checked for their length. After
// any failure the session may be left in the middle of something: the caller closes it.
#pragma once

#include "common/secret_bytes.h"
#include "hsmd/attributes.h"
#include "hsmd/spelling.h"

namespace sallyport::hsmd {

struct Session {
  const Module& module;
  CK_SLOT_ID slot;
  CK_SESSION_HANDLE handle;
};

// X25519. 32 bytes of `secret`, as they come out of the token.
Outcome<void> derive(const Session& session, CK_OBJECT_HANDLE key, hsm::PointForm form,
                     std::span<const std::byte, 32> peer, std::span<std::byte, 32> secret);
// The token's answer against one made in software, with a fresh pair. BadResult: it isn't the same.
Outcome<void> proveDerive(const Session& session, CK_OBJECT_HANDLE key, hsm::PointForm form,
                          std::span<const std::byte, 32> publicKey);

Outcome<void> sign(const Session& session, CK_OBJECT_HANDLE key, ByteSpan message, std::span<std::byte, 64> signature);
Outcome<void> proveSign(const Session& session, CK_OBJECT_HANDLE key, std::span<const std::byte, 32> publicKey);

// Wraps 32 bytes. `modulusBytes` for RSA: what comes out has exactly that length.
Outcome<hsm::Blob> wrap(const Session& session, CK_OBJECT_HANDLE key, hsm::WrapAlgorithm algorithm, size_t modulusBytes,
                        const hsm::Block32& bound, std::span<const std::byte, 32> secret);
// Refusals are what the module said: the worker makes one BlobRejected of them.
Outcome<void> unwrap(const Session& session, CK_OBJECT_HANDLE key, hsm::WrapAlgorithm algorithm,
                     const hsm::Block32& bound, ByteSpan blob, std::span<std::byte, 32> secret);
Outcome<void> proveWrap(const Session& session, CK_OBJECT_HANDLE wrapKey, CK_OBJECT_HANDLE unwrapKey,
                        hsm::WrapAlgorithm algorithm, size_t modulusBytes);

struct KeyPair {
  CK_OBJECT_HANDLE secret = 0;  // or the secret key
  CK_OBJECT_HANDLE open = 0;    // its public half; 0: none
};
// What every key that we make has: it never leaves the token. `stays`: a token object, else the session's.
struct NewKey {
  bool stays = true;
  ByteSpan id;
  std::string_view label;
};
Outcome<KeyPair> generateX25519(const Session& session, const SpellingRow& row, const NewKey& key);
Outcome<KeyPair> generateEd25519(const Session& session, std::string_view parameters, const NewKey& key);
Outcome<KeyPair> generateAes(const Session& session, const NewKey& key);
Outcome<KeyPair> generateRsa(const Session& session, CK_ULONG bits, const NewKey& key);
Outcome<KeyPair> importX25519(const Session& session, const SpellingRow& row, const NewKey& key,
                              std::span<const std::byte, 32> secret);
Outcome<KeyPair> importEd25519(const Session& session, std::string_view parameters, const NewKey& key,
                               std::span<const std::byte, 32> seed);
Outcome<KeyPair> importAes(const Session& session, const NewKey& key, std::span<const std::byte, 32> secret);
void destroy(const Session& session, const KeyPair& pair);

}  // namespace sallyport::hsmd
